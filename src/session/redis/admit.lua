-- admit.lua: grant seats to those who are next, while the capacity and the mode let them.
-- KEYS[1] {door}:gate    hash
-- KEYS[2] {door}:sites   hash
-- KEYS[3] {door}:renewed sorted set
-- KEYS[4] {door}:ready   sorted set
-- KEYS[5] {door}:present sorted set
-- KEYS[6] {door}:absent  sorted set
-- KEYS[7] {door}:changes stream
-- ARGV[1] lease, milliseconds of logical time
-- ARGV[2] the most places that this call looks at
-- ARGV[3] nonce of the changes that this call writes, 0 to 2^64-1
-- ARGV[4] how many changes the stream keeps, about
-- ARGV[5] version of the switches that the following were taken from
-- ARGV[6] the highest slot that the mode admits; -1: nobody
-- ARGV[7] capacity, seats in the nation
-- Reply: ADMITTED, how many, 1 if it stopped at its bound, and the live seats afterwards; or OTHER and the live seats when
--   the switches have another version: nothing changes then.
-- Invariants: the live seats, those included whose lease is over, are never more than the capacity; nobody is admitted before
--   a present place of a lower slot, or of the same slot with a smaller number. A place whose terminal is overdue is skipped.
assert(#KEYS == 7, 'admit.lua takes 7 keys')
assert(#ARGV == 7, 'admit.lua takes 7 arguments')
local gate, sites, renewed, ready, present, absent, changes = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local lease_ms, most, nonce, keep = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
local version, admits, capacity = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
assert(lease_ms and lease_ms > 0, 'the lease must be positive')
assert(most and most >= 1 and admits and capacity and capacity >= 0, 'the bounds must be numbers')

-- Read.
local now, seq, stands, fences, history = unpack(redis.call('HMGET', gate, 'now', 'seq', 'version', 'fences', 'history'))
now, seq, fences = tonumber(now or 0), tonumber(seq or 0), tonumber(fences or 0)
local live = redis.call('ZCARD', renewed)
if (stands or '0') ~= version then
  return { 'OTHER', live }
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
local next_ones = live < capacity and redis.call('ZRANGE', ready, 0, most - 1) or {}
local newest = #next_ones > 0 and redis.call('XREVRANGE', changes, '+', '-', 'COUNT', 1)[1]
local number = newest and tonumber(string.match(newest[1], '^%d+')) or 0

-- One after the other: several may be of one site.
local admitted, looked_at = 0, 0
for _, member in ipairs(next_ones) do
  local site, slot = string.match(member, '^(%S+) (%d+)$')
  if live >= capacity or tonumber(slot) > admits then
    break
  end
  looked_at = looked_at + 1
  local due = tonumber(redis.call('ZSCORE', present, member))
  redis.call('ZREM', ready, member)
  redis.call('ZREM', present, member)
  number = number + 1
  if now - due > lease_ms then
    redis.call('ZADD', absent, due, member)
    redis.call('XADD', changes, 'MAXLEN', '~', keep, number .. '-' .. nonce, 'site', site, 'slot', slot, 'why', 'absent')
  else
    local line = redis.call('HGET', sites, site)
    local fence = math.max(fences, tonumber(string.match(line, '^%d+'))) + 1
    local terminal, seq = string.match(line, ';' .. slot .. '~(%S+) (%d+)')
    -- The seat remembers the place that it was until its terminal comes for it (open.lua).
    line = string.gsub(line, ';' .. slot .. '~[^;]*',
      ';' .. slot .. '=' .. terminal .. ' ' .. fence .. ' ' .. now .. ' ' .. seq, 1)
    redis.call('HSET', sites, site, (string.gsub(line, '^%d+', fence, 1)))
    -- Whoever asks now and then learns of the seat when its next question is due: its lease begins then.
    redis.call('ZADD', renewed, math.max(now, due), member)
    redis.call('XADD', changes, 'MAXLEN', '~', keep, number .. '-' .. nonce, 'site', site, 'slot', slot,
      'terminal', terminal, 'fence', fence, 'seq', seq, 'why', 'admitted')
    live, admitted = live + 1, admitted + 1
  end
end
return { 'ADMITTED', admitted, looked_at == most and 1 or 0, live }
