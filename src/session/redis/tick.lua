-- tick.lua: move logical time, and do a bounded part of what time brings: end seats that have expired (all of them while the
--   door is closed), skip places that are overdue, remove those absent for the grace, let sites off the ramp. Begins the
--   stream of changes where there is none, so that a history in which nothing has changed yet can be told from one that was
--   lost.
-- KEYS[1] {door}:gate     hash
-- KEYS[2] {door}:sites    hash
-- KEYS[3] {door}:renewed  sorted set
-- KEYS[4] {door}:sold     sorted set
-- KEYS[5] {door}:ready    sorted set
-- KEYS[6] {door}:held     sorted set
-- KEYS[7] {door}:present  sorted set
-- KEYS[8] {door}:absent   sorted set
-- KEYS[9] {door}:ramped   set
-- KEYS[10] {door}:changes stream
-- ARGV[1] lease, milliseconds of logical time
-- ARGV[2] the most that this tick moves logical time, milliseconds
-- ARGV[3] the most seats, places or sites of each kind that this tick works on
-- ARGV[4] nonce of the changes that this call writes, 0 to 2^64-1
-- ARGV[5] how many changes the stream keeps, about
-- ARGV[6] grace, milliseconds of logical time
-- ARGV[7] version of the switches that the following were taken from
-- ARGV[8] 1 if the mode is closed, else 0
-- ARGV[9] thousandths of a site that come off the ramp a second; -1: there is no ramp
-- ARGV[10] for how long nobody comes off the ramp because sales are slow, milliseconds; 0 if they are not
-- Reply: TICKED or OTHER (the switches have another version: then only time passed), the number of seats ended, and 1 if it
--   stopped at its bound, else 0.
-- Invariants: logical time never goes back and never runs ahead of the store's clock; a step of that clock, an outage or
--   a successor with another clock moves it by one bounded step at the most. This is the only script that asks a clock.
assert(#KEYS == 10, 'tick.lua takes 10 keys')
assert(#ARGV == 10, 'tick.lua takes 10 arguments')
local gate, sites, renewed, sold, ready = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local held, present, absent, ramped, changes = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local lease_ms, max_step_ms, batch, nonce, keep = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]
local grace_ms, version, closed, rate, burns_ms = tonumber(ARGV[6]), ARGV[7], ARGV[8] == '1', tonumber(ARGV[9]), tonumber(ARGV[10])
assert(lease_ms and lease_ms > 0 and grace_ms and grace_ms > 0, 'lease and grace must be positive')
assert(max_step_ms and max_step_ms > 0, 'the longest step must be positive')
assert(batch and batch >= 1, 'the batch must be positive')
assert(rate and burns_ms, 'the ramp must be numbers')

-- Read.
local time = redis.call('TIME')
local store_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local now, last, stands, budget, burns = unpack(redis.call('HMGET', gate, 'now', 'last', 'version', 'budget', 'burns'))
now, budget, burns = tonumber(now or 0), tonumber(budget or 0), tonumber(burns or 0)
local passed = math.min(math.max(store_ms - tonumber(last or store_ms), 0), max_step_ms)
now = now + passed
local other = (stands or '0') ~= version
closed = closed and not other
local function until_then(key, most)
  return redis.call('ZRANGE', key, '-inf', '(' .. most, 'BYSCORE', 'LIMIT', 0, batch)
end
local over = closed and redis.call('ZRANGE', renewed, 0, batch - 1) or until_then(renewed, now - lease_ms)
local newest = redis.call('XREVRANGE', changes, '+', '-', 'COUNT', 1)[1]
local number = newest and tonumber(string.match(newest[1], '^%d+')) or 0

-- Write.
redis.call('HSET', gate, 'now', now, 'last', store_ms)
if not newest then
  number = 1
  redis.call('XADD', changes, '1-' .. nonce, 'why', 'begun')
end
local function change(...)
  number = number + 1
  redis.call('XADD', changes, 'MAXLEN', '~', keep, number .. '-' .. nonce, 'site', ...)
end
local function forget_place(member)
  for _, key in ipairs({ ready, held, present, absent }) do
    redis.call('ZREM', key, member)
  end
end

for _, member in ipairs(over) do
  local site, slot = string.match(member, '^(%S+) (%d+)$')
  local line = redis.call('HGET', sites, site)
  local terminal, fence, seq = string.match(line, ';' .. slot .. '=(%S+) (%d+) %d+ ?(%d*)')
  local since = tonumber(redis.call('ZSCORE', renewed, member))
  local late = now - since > lease_ms
  -- A seat that its terminal never came for is the place again that it was.
  local place = seq ~= '' and ';' .. slot .. '~' .. terminal .. ' ' .. seq or ''
  redis.call('HSET', sites, site, (string.gsub(line, ';' .. slot .. '=[^;]*', place, 1)))
  redis.call('ZREM', renewed, member)
  redis.call('ZREM', sold, member)
  change(site, 'slot', slot, 'fence', fence, 'why', late and 'expired' or 'shut')
  if seq ~= '' then
    change(site, 'slot', slot, 'terminal', terminal, 'seq', seq, 'why', 'waits')
    redis.call('ZADD', late and absent or present, since, member)
    if late then
      change(site, 'slot', slot, 'why', 'absent')
    else
      redis.call('ZADD', ready, slot * 2 ^ 36 + seq, member)
    end
  end
end

local overdue = until_then(present, now - lease_ms)
for _, member in ipairs(overdue) do
  local site, slot = string.match(member, '^(%S+) (%d+)$')
  redis.call('ZADD', absent, redis.call('ZSCORE', present, member), member)
  redis.call('ZREM', present, member)
  redis.call('ZREM', ready, member)
  change(site, 'slot', slot, 'why', 'absent')
end

-- The site's present terminal of the next rank inherits the number of a place that was absent for the grace.
local forgotten = until_then(absent, now - grace_ms)
for _, member in ipairs(forgotten) do
  local site, slot = string.match(member, '^(%S+) (%d+)$')
  local line = redis.call('HGET', sites, site)
  local seq = string.match(line, ';' .. slot .. '~%S+ (%d+)')
  local heir
  for at, who, its in string.gmatch(line, ';(%d+)~(%S+) (%d+)') do
    at = tonumber(at)
    if at > tonumber(slot) and not (heir and heir.slot < at) then
      local due = redis.call('ZSCORE', present, site .. ' ' .. at)
      if due then
        heir = { slot = at, terminal = who, seq = its, due = due }
      end
    end
  end
  forget_place(member)
  line = string.gsub(line, ';' .. slot .. '~[^;]*', '', 1)
  change(site, 'slot', slot, 'seq', seq, 'why', 'forgotten')
  if heir then
    local old = site .. ' ' .. heir.slot
    local held_back = redis.call('ZSCORE', held, old)
    forget_place(old)
    line = string.gsub(line, ';' .. heir.slot .. '~[^;]*', '', 1) .. ';' .. slot .. '~' .. heir.terminal .. ' ' .. seq
    redis.call('ZADD', present, heir.due, member)
    redis.call('ZADD', held_back and held or ready, slot * 2 ^ 36 + seq, member)
    change(site, 'slot', heir.slot, 'seq', heir.seq, 'why', 'moved')
    change(site, 'slot', slot, 'terminal', heir.terminal, 'seq', seq, 'why', 'waits')
  end
  redis.call('HSET', sites, site, line)
end

local off = 0
if not other then
  if burns_ms > 0 then
    burns = now + burns_ms
  end
  local allowed = batch
  if rate < 0 then
    redis.call('DEL', ramped)
  elseif now < burns then
    allowed, budget = 0, 0
  else
    -- What nobody uses is kept for a second and one site, and no longer.
    budget = math.min(budget + rate * passed, rate * 1000 + 1000000)
    allowed = math.min(math.floor(budget / 1000000), batch)
  end
  while off < allowed do
    local first = redis.call('ZRANGE', held, 0, 0)[1]
    if not first then
      break
    end
    local site = string.match(first, '^%S+')
    for slot in string.gmatch(redis.call('HGET', sites, site), ';(%d+)~') do
      local member = site .. ' ' .. slot
      local order = redis.call('ZSCORE', held, member)
      if order then
        redis.call('ZREM', held, member)
        if redis.call('ZSCORE', present, member) then
          redis.call('ZADD', ready, order, member)
        end
      end
    end
    if rate >= 0 then
      redis.call('SADD', ramped, site)
      budget = budget - 1000000
    end
    off = off + 1
  end
  redis.call('HSET', gate, 'budget', budget, 'burns', burns)
end
local more = #over == batch or #overdue == batch or #forgotten == batch or off == batch
return { other and 'OTHER' or 'TICKED', #over, more and 1 or 0 }
