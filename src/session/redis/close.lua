-- close.lua: free a seat at once.
-- KEYS[1] {door}:sites   hash
-- KEYS[2] {door}:renewed sorted set
-- KEYS[3] {door}:sold    sorted set
-- KEYS[4] {door}:changes stream
-- ARGV[1] site code, text
-- ARGV[2] slot
-- ARGV[3] terminal name, text
-- ARGV[4] fence
-- ARGV[5] nonce of the change that this call writes, 0 to 2^64-1
-- ARGV[6] how many changes the stream keeps, about
-- Reply: CLOSED, or GONE when the seat was not live any more; nothing changes then.
-- Invariant: only the grant with this fence is freed; a later one of the same slot stays.
assert(#KEYS == 4, 'close.lua takes 4 keys')
assert(#ARGV == 6, 'close.lua takes 6 arguments')
local sites, renewed, sold, changes = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local site, slot, terminal, fence, nonce, keep = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

-- Read.
local line = redis.call('HGET', sites, site) or '0'
local holder, held_fence = string.match(line, ';' .. slot .. '=(%S+) (%d+)')
local newest = redis.call('XREVRANGE', changes, '+', '-', 'COUNT', 1)[1]
local number = newest and tonumber(string.match(newest[1], '^%d+')) or 0

-- Decide.
if holder ~= terminal or held_fence ~= fence then
  return { 'GONE' }
end

-- Write.
redis.call('HSET', sites, site, (string.gsub(line, ';' .. slot .. '=[^;]*', '', 1)))
redis.call('ZREM', renewed, site .. ' ' .. slot)
redis.call('ZREM', sold, site .. ' ' .. slot)
redis.call('XADD', changes, 'MAXLEN', '~', keep, (number + 1) .. '-' .. nonce,
  'site', site, 'slot', slot, 'fence', fence, 'why', 'closed')
return { 'CLOSED' }
