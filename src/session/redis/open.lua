-- open.lua: give a terminal a seat of a site, if the cap and the capacity leave one and nobody waits; otherwise a place.
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
-- ARGV[1] site code, text
-- ARGV[2] terminal name, text
-- ARGV[3] cap, seats and places, 0 to 65535
-- ARGV[4] lease, milliseconds of logical time
-- ARGV[5] nonce of the changes that this call writes, 0 to 2^64-1
-- ARGV[6] how many changes the stream keeps, about
-- ARGV[7] version of the switches that the following were taken from
-- ARGV[8] mode: open, queue_all, first_terminals_only, drain or closed
-- ARGV[9] capacity, seats in the nation
-- ARGV[10] 1 if the site must come off the ramp first, else 0
-- ARGV[11] when the next sign of life is due if the terminal waits, milliseconds from now
-- Reply: GRANTED slot fence replaced_slot replaced_fence (-1 -1: nothing was replaced), or
--        WAITING slot seq new (1 if the number was given out now, else 0), or
--        FULL now, then slot terminal kind granted_ms until_ms of each (kind: seat or place; a place has -1 for granted), or
--        SHUT, or OTHER when the switches have another version; then nothing changes (of SHUT: but what has expired ends).
-- Invariants: a terminal has at most one slot of a site; no opening makes seats and places more than the cap, no grant the
--   nation's seats more than the capacity; a fence and a seq are never given out twice. limiter.rs states the same rules.
assert(#KEYS == 10, 'open.lua takes 10 keys')
assert(#ARGV == 11, 'open.lua takes 11 arguments')
local gate, sites, renewed, sold, ready = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local held, present, absent, ramped, changes = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local site, terminal, cap, lease_ms, nonce, keep = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6]
local version, mode, capacity, on_ramp, due_in = ARGV[7], ARGV[8], tonumber(ARGV[9]), ARGV[10] == '1', tonumber(ARGV[11])
assert(cap and cap >= 0 and cap <= 65535 and cap % 1 == 0, 'the cap must be 0 to 65535')
assert(lease_ms and lease_ms > 0, 'the lease must be positive')
assert(capacity and capacity >= 0 and due_in and due_in >= 0, 'capacity and due must be numbers')
local admits = ({ open = 65535, queue_all = -1, first_terminals_only = 0, drain = -1, closed = -1 })[mode]
assert(admits, 'the mode is not known')

-- Read.
local now, seq, stands, fences, history = unpack(redis.call('HMGET', gate, 'now', 'seq', 'version', 'fences', 'history'))
now, seq, fences = tonumber(now or 0), tonumber(seq or 0), tonumber(fences or 0)
if (stands or '0') ~= version then
  return { 'OTHER' }
end
-- A server that has taken over may lack the newest numbers that were given out: it goes on above all that there can be. So
-- does one that was started anew, which does not remember whether it had taken over.
local is_now = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
if is_now ~= history then
  if history then
    seq, fences = seq + 1000000, fences + 1000000
  end
  redis.call('HSET', gate, 'history', is_now, 'seq', seq, 'fences', fences)
end
local line = redis.call('HGET', sites, site) or '0'
local fence = math.max(fences, tonumber(string.match(line, '^%d+')))
local newest = redis.call('XREVRANGE', changes, '+', '-', 'COUNT', 1)[1]
local number = newest and tonumber(string.match(newest[1], '^%d+')) or 0
local own, waits, others, ended, slots, taken = nil, nil, 0, {}, {}, {}
for slot, kind, who, count, granted, place in string.gmatch(line, ';(%d+)([=~])(%S+) (%d+) ?(%d*) ?(%d*)') do
  local it = { slot = tonumber(slot), member = site .. ' ' .. slot, seat = kind == '=', terminal = who, count = count,
    granted = granted, place = place }
  if it.seat then
    it.since = tonumber(redis.call('ZSCORE', renewed, it.member))
  else
    it.since = tonumber(redis.call('ZSCORE', present, it.member) or redis.call('ZSCORE', absent, it.member))
  end
  it.over = now - it.since > lease_ms
  -- What has expired is free, or the place again that it was if its terminal never came. The terminal's own seat is not:
  -- it is about to be replaced.
  if it.seat and it.over and who ~= terminal then
    ended[#ended + 1] = it
    it = place ~= '' and { slot = it.slot, member = it.member, terminal = who, count = place, since = it.since, over = true }
  end
  if it then
    slots[#slots + 1] = it
    taken[it.slot] = it
    if who ~= terminal then
      others = others + 1
    elseif it.seat then
      own = it
    else
      waits = it
    end
  end
end
table.sort(slots, function(a, b) return a.slot < b.slot end)

-- Decide. An absent place is its site's: another terminal of the site goes on waiting in it.
local slot, heir
if waits and waits.slot < cap then
  slot = waits.slot
elseif mode == 'closed' then
  slot = nil
elseif own and own.slot < cap then
  slot = own.slot
else
  for candidate = 0, cap - 1 do
    local it = taken[candidate]
    if not it and others < cap then
      slot = candidate
      break
    elseif it and not it.seat and it.over and not own and others <= cap then
      slot, heir = candidate, it
      break
    end
  end
end
local outcome
if waits and waits.slot == slot then
  outcome = 'WAITS'
elseif mode == 'closed' then
  outcome = 'SHUT'
elseif not slot then
  outcome = 'FULL'
elseif own then
  outcome = 'GRANTED'
elseif heir then
  outcome = 'INHERITS'
elseif mode == 'drain' then
  outcome = 'SHUT'
else
  on_ramp = on_ramp and redis.call('SISMEMBER', ramped, site) == 0
  local live = redis.call('ZCARD', renewed) - #ended
  -- Its own place above the cap is about to be left.
  local others_ready = redis.call('ZCARD', ready) - (waits and redis.call('ZSCORE', ready, waits.member) and 1 or 0)
  local at_once = slot <= admits and not on_ramp and live < capacity and others_ready == 0
  outcome = at_once and 'GRANTED' or 'QUEUED'
end

-- Write.
local function change(...)
  number = number + 1
  redis.call('XADD', changes, 'MAXLEN', '~', keep, number .. '-' .. nonce, 'site', site, ...)
end
local member = slot and site .. ' ' .. slot
local function drop(it)
  taken[it.slot] = nil
  for _, key in ipairs(it.seat and { renewed, sold } or { ready, held, present, absent }) do
    redis.call('ZREM', key, it.member)
  end
end
local function leave_the_place_above_the_cap()
  if waits then
    drop(waits)
    change('slot', waits.slot, 'seq', waits.count, 'why', 'moved')
  end
end
for _, it in ipairs(ended) do
  redis.call('ZREM', renewed, it.member)
  redis.call('ZREM', sold, it.member)
  change('slot', it.slot, 'fence', it.count, 'why', 'expired')
  if it.place ~= '' then
    redis.call('ZADD', absent, it.since, it.member)
    change('slot', it.slot, 'terminal', it.terminal, 'seq', it.place, 'why', 'waits')
    change('slot', it.slot, 'why', 'absent')
  end
end
local reply
if outcome == 'FULL' then
  reply = { 'FULL', now }
  for _, it in ipairs(slots) do
    for _, value in ipairs({ it.slot, it.terminal, it.seat and 'seat' or 'place', it.seat and tonumber(it.granted) or -1, it.since + lease_ms }) do
      reply[#reply + 1] = value
    end
  end
elseif outcome == 'SHUT' then
  reply = { 'SHUT' }
elseif outcome == 'GRANTED' then
  local last_sale
  if own then
    last_sale = redis.call('ZSCORE', sold, own.member)
    drop(own)
    change('slot', own.slot, 'fence', own.count, 'why', 'replaced')
  end
  leave_the_place_above_the_cap()
  fence = fence + 1
  taken[slot] = { slot = slot, seat = true, terminal = terminal, count = fence, granted = now, place = '' }
  redis.call('ZADD', renewed, now, member)
  if last_sale then
    redis.call('ZADD', sold, last_sale, member)
  end
  reply = { 'GRANTED', slot, fence, own and own.slot or -1, own and tonumber(own.count) or -1 }
elseif outcome == 'QUEUED' then
  leave_the_place_above_the_cap()
  seq = seq + 1
  redis.call('HSET', gate, 'seq', seq)
  redis.call('ZADD', on_ramp and held or ready, slot * 2 ^ 36 + seq, member)
  redis.call('ZADD', present, now + due_in, member)
  taken[slot] = { slot = slot, terminal = terminal, count = seq }
  change('slot', slot, 'terminal', terminal, 'seq', seq, 'why', 'waits')
  reply = { 'WAITING', slot, seq, 1 }
else
  local it = heir or waits
  if heir then
    leave_the_place_above_the_cap()
  end
  local was_absent = redis.call('ZREM', absent, member) == 1
  redis.call('ZADD', present, now + due_in, member)
  if not redis.call('ZSCORE', held, member) then
    redis.call('ZADD', ready, slot * 2 ^ 36 + it.count, member)
  end
  it.terminal = terminal
  if heir then
    change('slot', slot, 'terminal', terminal, 'seq', it.count, 'why', 'waits')
  elseif was_absent then
    change('slot', slot, 'why', 'present')
  end
  reply = { 'WAITING', slot, tonumber(it.count), 0 }
end
local kept = {}
for _, it in pairs(taken) do
  kept[#kept + 1] = it
end
table.sort(kept, function(a, b) return a.slot < b.slot end)
local text = tostring(fence)
for _, it in ipairs(kept) do
  text = text .. ';' .. it.slot .. (it.seat and '=' or '~') .. it.terminal .. ' ' .. it.count
  if it.seat then
    text = text .. ' ' .. it.granted .. (it.place ~= '' and ' ' .. it.place or '')
  end
end
if text ~= line then
  redis.call('HSET', sites, site, text)
end
return reply
