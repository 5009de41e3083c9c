-- renew.lua: begin the leases of these seats anew, and take down when they sold last.
-- KEYS[1] {door}:gate    hash
-- KEYS[2] {door}:sites   hash
-- KEYS[3] {door}:renewed sorted set
-- KEYS[4] {door}:sold    sorted set
-- ARGV[1] number of seats, 1 to 256
-- then for each seat, ARGV[5i-3] to ARGV[5i+1]: site code, slot, terminal name, fence, how many milliseconds ago it sold
--   last (-1: no news)
-- Reply: for each seat one word: LIVE, REPLACED or LOST.
-- Invariant: only a seat's own terminal under its own fence moves its renewal. A seat that is live is renewed even when
--   its lease is over: nobody has taken it.
assert(#KEYS == 4, 'renew.lua takes 4 keys')
local count = tonumber(ARGV[1])
assert(count and count >= 1 and count <= 256, 'renew.lua takes 1 to 256 seats')
assert(#ARGV == 1 + 5 * count, 'renew.lua takes 5 arguments a seat')
local gate, sites, renewed, sold = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

-- Read and decide.
local now = tonumber(redis.call('HGET', gate, 'now') or 0)
local reply, live, sales = {}, {}, {}
for i = 1, count do
  local site, slot, terminal, fence, ago = unpack(ARGV, 5 * i - 3, 5 * i + 1)
  local line = redis.call('HGET', sites, site) or '0'
  local holder, held_fence = string.match(line, ';' .. slot .. '=(%S+) (%d+)')
  if holder == terminal and held_fence == fence then
    reply[i] = 'LIVE'
    live[#live + 1] = site .. ' ' .. slot
    sales[#sales + 1] = tonumber(ago)
  elseif holder or string.find(line, '=' .. terminal .. ' ', 1, true) then
    reply[i] = 'REPLACED'
  else
    reply[i] = 'LOST'
  end
end

-- Write. A lease that begins later than now, of a terminal that asks now and then, is not cut short.
for i, member in ipairs(live) do
  redis.call('ZADD', renewed, 'GT', now, member)
  if sales[i] >= 0 then
    redis.call('ZADD', sold, 'GT', math.max(now - sales[i], 0), member)
  end
end
return reply
