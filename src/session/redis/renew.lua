-- renew.lua: begin the leases of these seats anew.
-- KEYS[1] {door}:gate    hash
-- KEYS[2] {door}:sites   hash
-- KEYS[3] {door}:renewed sorted set
-- ARGV[1] number of seats, 1 to 256
-- then for each seat, ARGV[4i-2] to ARGV[4i+1]: site code, slot, terminal name, fence
-- Reply: for each seat one word: LIVE, REPLACED or LOST.
-- Invariant: only a seat's own terminal under its own fence moves its renewal. A seat that is live is renewed even when
--   its lease is over: nobody has taken it.
assert(#KEYS == 3, 'renew.lua takes 3 keys')
local count = tonumber(ARGV[1])
assert(count and count >= 1 and count <= 256, 'renew.lua takes 1 to 256 seats')
assert(#ARGV == 1 + 4 * count, 'renew.lua takes 4 arguments a seat')
local gate, sites, renewed = KEYS[1], KEYS[2], KEYS[3]

-- Read and decide.
local now = tonumber(redis.call('HGET', gate, 'now') or 0)
local reply, live = {}, {}
for i = 1, count do
  local site, slot, terminal, fence = ARGV[4 * i - 2], ARGV[4 * i - 1], ARGV[4 * i], ARGV[4 * i + 1]
  local line = redis.call('HGET', sites, site) or '0'
  local holder, held_fence = string.match(line, ';' .. slot .. '=(%S+) (%d+)')
  if holder == terminal and held_fence == fence then
    reply[i] = 'LIVE'
    live[#live + 1] = site .. ' ' .. slot
  elseif holder or string.find(line, '=' .. terminal .. ' ', 1, true) then
    reply[i] = 'REPLACED'
  else
    reply[i] = 'LOST'
  end
end

-- Write.
for _, member in ipairs(live) do
  redis.call('ZADD', renewed, now, member)
end
return reply
