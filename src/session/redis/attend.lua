-- attend.lua: keep the places of these terminals, and move those up whose site has given up a lower slot.
-- KEYS[1] {door}:gate    hash
-- KEYS[2] {door}:sites   hash
-- KEYS[3] {door}:ready   sorted set
-- KEYS[4] {door}:held    sorted set
-- KEYS[5] {door}:present sorted set
-- KEYS[6] {door}:absent  sorted set
-- KEYS[7] {door}:renewed sorted set
-- KEYS[8] {door}:changes stream
-- ARGV[1] number of terminals, 1 to 256
-- ARGV[2] nonce of the changes that this call writes, 0 to 2^64-1
-- ARGV[3] how many changes the stream keeps, about
-- then for each terminal, ARGV[3i+1] to ARGV[3i+3]: site code, terminal name, when its next sign of life is due in
--   milliseconds from now
-- Reply: for each terminal two numbers: slot and seq of its place, or -1 -1 if it has none.
-- Invariants: a place keeps its number unless it moves to a better rank; there it stands behind those who wait. A terminal
--   that was admitted and has not heard of it keeps its seat until its next sign of life is due, and the lease.
assert(#KEYS == 8, 'attend.lua takes 8 keys')
local count, nonce, keep = tonumber(ARGV[1]), ARGV[2], ARGV[3]
assert(count and count >= 1 and count <= 256, 'attend.lua takes 1 to 256 terminals')
assert(#ARGV == 3 + 3 * count, 'attend.lua takes 3 arguments a terminal')
local gate, sites, ready, held, present, absent = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local renewed, changes = KEYS[7], KEYS[8]

local now, seq, fences, history = unpack(redis.call('HMGET', gate, 'now', 'seq', 'fences', 'history'))
now, seq, fences = tonumber(now or 0), tonumber(seq or 0), tonumber(fences or 0)
-- A server that has taken over may lack the newest numbers that were given out: it goes on above all that there can be. So
-- does one that was started anew, which does not remember whether it had taken over.
local is_now = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
if is_now ~= history then
  if history then
    seq, fences = seq + 1000000, fences + 1000000
  end
  redis.call('HSET', gate, 'history', is_now, 'seq', seq, 'fences', fences)
end
local newest = redis.call('XREVRANGE', changes, '+', '-', 'COUNT', 1)[1]
local number = newest and tonumber(string.match(newest[1], '^%d+')) or 0
local function change(...)
  number = number + 1
  redis.call('XADD', changes, 'MAXLEN', '~', keep, number .. '-' .. nonce, 'site', ...)
end

-- One terminal after the other: several may be of one site.
local reply = {}
for i = 1, count do
  local site, terminal, due_in = unpack(ARGV, 3 * i + 1, 3 * i + 3)
  local line = redis.call('HGET', sites, site) or '0'
  local slot, its, seat, taken = nil, nil, nil, {}
  for at, kind, who, number_of in string.gmatch(line, ';(%d+)([=~])(%S+) (%d+)') do
    taken[tonumber(at)] = true
    if kind == '~' and who == terminal then
      slot, its = tonumber(at), tonumber(number_of)
    elseif who == terminal then
      seat = at
    end
  end
  if not slot then
    if seat then
      redis.call('ZADD', renewed, 'GT', now + due_in, site .. ' ' .. seat)
    end
    reply[2 * i - 1], reply[2 * i] = -1, -1
  else
    local member, lower = site .. ' ' .. slot, 0
    while taken[lower] do lower = lower + 1 end
    local held_back = redis.call('ZSCORE', held, member)
    if lower < slot then
      for _, key in ipairs({ ready, held, present, absent }) do
        redis.call('ZREM', key, member)
      end
      change(site, 'slot', slot, 'seq', its, 'why', 'moved')
      line = string.gsub(line, ';' .. slot .. '~[^;]*', '', 1)
      seq = seq + 1
      slot, its, member = lower, seq, site .. ' ' .. lower
      redis.call('HSET', sites, site, line .. ';' .. slot .. '~' .. terminal .. ' ' .. its)
      redis.call('HSET', gate, 'seq', seq)
      change(site, 'slot', slot, 'terminal', terminal, 'seq', its, 'why', 'waits')
    elseif redis.call('ZREM', absent, member) == 1 then
      change(site, 'slot', slot, 'why', 'present')
    end
    redis.call('ZADD', present, now + due_in, member)
    redis.call('ZADD', held_back and held or ready, slot * 2 ^ 36 + its, member)
    reply[2 * i - 1], reply[2 * i] = slot, its
  end
end
return reply
