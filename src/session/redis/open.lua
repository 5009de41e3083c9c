-- open.lua: give a terminal a seat of a site, if the cap leaves one.
-- KEYS[1] {door}:gate    hash
-- KEYS[2] {door}:sites   hash
-- KEYS[3] {door}:renewed sorted set
-- KEYS[4] {door}:changes stream
-- ARGV[1] site code, text
-- ARGV[2] terminal name, text
-- ARGV[3] cap, seats, 0 to 65535
-- ARGV[4] lease, milliseconds of logical time
-- ARGV[5] nonce of the changes that this call writes, 0 to 2^64-1
-- ARGV[6] how many changes the stream keeps, about
-- Reply: GRANTED slot fence replaced_slot replaced_fence (-1 -1: nothing was replaced), or
--        FULL now, then slot terminal granted_ms renewed_ms of each live seat.
-- Invariants: a terminal has at most one seat of a site; no grant makes the live seats more than the cap; a fence is
--   never given out twice. limiter.rs states the same rules.
assert(#KEYS == 4, 'open.lua takes 4 keys')
assert(#ARGV == 6, 'open.lua takes 6 arguments')
local gate, sites, renewed, changes = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local site, terminal, cap, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local nonce, keep = ARGV[5], ARGV[6]
assert(cap and cap >= 0 and cap <= 65535 and cap % 1 == 0, 'the cap must be 0 to 65535')
assert(lease_ms and lease_ms > 0, 'the lease must be positive')

-- Read.
local now = tonumber(redis.call('HGET', gate, 'now') or 0)
local line = redis.call('HGET', sites, site) or '0'
local last_fence = tonumber(string.match(line, '^%d+'))
local newest = redis.call('XREVRANGE', changes, '+', '-', 'COUNT', 1)[1]
local number = newest and tonumber(string.match(newest[1], '^%d+')) or 0
local seats = {}
for slot, who, fence, granted in string.gmatch(line, ';(%d+)=(%S+) (%d+) (%d+)') do
  local renewal = tonumber(redis.call('ZSCORE', renewed, site .. ' ' .. slot))
  seats[#seats + 1] = { slot = tonumber(slot), terminal = who, fence = tonumber(fence), granted = granted, renewed = renewal }
end

-- Decide. What has expired is free; the terminal's own seat is not, it is about to be replaced.
local own, live, taken, ended = nil, {}, {}, {}
for _, seat in ipairs(seats) do
  if seat.terminal == terminal then
    own = seat
  end
  if seat ~= own and now - seat.renewed > lease_ms then
    ended[#ended + 1] = { seat, 'expired' }
  else
    live[#live + 1] = seat
    taken[seat.slot] = true
  end
end
local slot
if own and own.slot < cap then
  slot = own.slot
elseif #live - (own and 1 or 0) < cap then
  slot = 0
  while taken[slot] do slot = slot + 1 end
end
local fence, kept = last_fence, live
if slot then
  fence = last_fence + 1
  kept = { { slot = slot, terminal = terminal, fence = fence, granted = now } }
  for _, seat in ipairs(live) do
    if seat ~= own then kept[#kept + 1] = seat end
  end
  table.sort(kept, function(a, b) return a.slot < b.slot end)
  if own then ended[#ended + 1] = { own, 'replaced' } end
end

-- Write.
for _, ending in ipairs(ended) do
  local seat, why = ending[1], ending[2]
  number = number + 1
  redis.call('XADD', changes, 'MAXLEN', '~', keep, number .. '-' .. nonce,
    'site', site, 'slot', seat.slot, 'fence', seat.fence, 'why', why)
  redis.call('ZREM', renewed, site .. ' ' .. seat.slot)
end
if slot then
  redis.call('ZADD', renewed, now, site .. ' ' .. slot)
end
if slot or #ended > 0 then
  line = tostring(fence)
  for _, seat in ipairs(kept) do
    line = line .. ';' .. seat.slot .. '=' .. seat.terminal .. ' ' .. seat.fence .. ' ' .. seat.granted
  end
  redis.call('HSET', sites, site, line)
end

if slot then
  return { 'GRANTED', slot, fence, own and own.slot or -1, own and own.fence or -1 }
end
local reply = { 'FULL', now }
for _, seat in ipairs(live) do
  reply[#reply + 1] = seat.slot
  reply[#reply + 1] = seat.terminal
  reply[#reply + 1] = tonumber(seat.granted)
  reply[#reply + 1] = seat.renewed
end
return reply
