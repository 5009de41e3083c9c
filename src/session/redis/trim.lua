-- trim.lua: end seats and remove places of these sites above these caps.
-- KEYS[1] {door}:gate    hash
-- KEYS[2] {door}:sites   hash
-- KEYS[3] {door}:renewed sorted set
-- KEYS[4] {door}:sold    sorted set
-- KEYS[5] {door}:ready   sorted set
-- KEYS[6] {door}:held    sorted set
-- KEYS[7] {door}:present sorted set
-- KEYS[8] {door}:absent  sorted set
-- KEYS[9] {door}:changes stream
-- ARGV[1] number of sites, 1 to 256
-- ARGV[2] nonce of the changes that this call writes, 0 to 2^64-1
-- ARGV[3] how many changes the stream keeps, about
-- ARGV[4] version of the switches that the caps were taken from
-- then for each site, ARGV[2i+3] and ARGV[2i+4]: site code, cap
-- Reply: TRIMMED and how many seats and places; or OTHER and 0 when the switches have another version.
-- Invariants: seats stay before places; of the seats the one that sold last, of those that have not sold the one that was
--   granted first; of the places the one of the lowest slot.
assert(#KEYS == 9, 'trim.lua takes 9 keys')
local count, nonce, keep, version = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
assert(count and count >= 1 and count <= 256, 'trim.lua takes 1 to 256 sites')
assert(#ARGV == 4 + 2 * count, 'trim.lua takes 2 arguments a site')
local gate, sites, renewed, sold, ready = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local held, present, absent, changes = KEYS[6], KEYS[7], KEYS[8], KEYS[9]

if (redis.call('HGET', gate, 'version') or '0') ~= version then
  return { 'OTHER', 0 }
end
local newest = redis.call('XREVRANGE', changes, '+', '-', 'COUNT', 1)[1]
local number = newest and tonumber(string.match(newest[1], '^%d+')) or 0
local trimmed = 0
for i = 1, count do
  local site, cap = ARGV[2 * i + 3], tonumber(ARGV[2 * i + 4])
  local line = redis.call('HGET', sites, site) or '0'
  local slots = {}
  for slot, kind, _, its in string.gmatch(line, ';(%d+)([=~])(%S+) (%d+)') do
    local sale = kind == '=' and tonumber(redis.call('ZSCORE', sold, site .. ' ' .. slot) or 0) or -1
    slots[#slots + 1] = { slot = tonumber(slot), seat = kind == '=', count = tonumber(its), sale = sale }
  end
  table.sort(slots, function(a, b)
    if a.sale ~= b.sale then return a.sale > b.sale end
    if a.seat and a.count ~= b.count then return a.count < b.count end
    return a.slot < b.slot
  end)
  for n = cap + 1, #slots do
    local it = slots[n]
    line = string.gsub(line, ';' .. it.slot .. '[=~][^;]*', '', 1)
    for _, key in ipairs({ renewed, sold, ready, held, present, absent }) do
      redis.call('ZREM', key, site .. ' ' .. it.slot)
    end
    number, trimmed = number + 1, trimmed + 1
    redis.call('XADD', changes, 'MAXLEN', '~', keep, number .. '-' .. nonce, 'site', site, 'slot', it.slot,
      it.seat and 'fence' or 'seq', it.count, 'why', it.seat and 'cap_lowered' or 'place_cap_lowered')
  end
  if #slots > cap then
    redis.call('HSET', sites, site, line)
  end
end
return { 'TRIMMED', trimmed }
