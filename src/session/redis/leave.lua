-- leave.lua: give a place up.
-- KEYS[1] {door}:sites   hash
-- KEYS[2] {door}:ready   sorted set
-- KEYS[3] {door}:held    sorted set
-- KEYS[4] {door}:present sorted set
-- KEYS[5] {door}:absent  sorted set
-- KEYS[6] {door}:changes stream
-- ARGV[1] site code, text
-- ARGV[2] slot
-- ARGV[3] terminal name, text
-- ARGV[4] seq
-- ARGV[5] nonce of the change that this call writes, 0 to 2^64-1
-- ARGV[6] how many changes the stream keeps, about
-- Reply: LEFT, or GONE when it is another place by now, or none; nothing changes then.
-- Invariant: only the place with this number of this terminal is given up.
assert(#KEYS == 6, 'leave.lua takes 6 keys')
assert(#ARGV == 6, 'leave.lua takes 6 arguments')
local sites, ready, held, present, absent, changes = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local site, slot, terminal, seq, nonce, keep = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

-- Read.
local line = redis.call('HGET', sites, site) or '0'
local who, its = string.match(line, ';' .. slot .. '~(%S+) (%d+)')
local newest = redis.call('XREVRANGE', changes, '+', '-', 'COUNT', 1)[1]
local number = newest and tonumber(string.match(newest[1], '^%d+')) or 0

-- Decide.
if who ~= terminal or its ~= seq then
  return { 'GONE' }
end

-- Write.
redis.call('HSET', sites, site, (string.gsub(line, ';' .. slot .. '~[^;]*', '', 1)))
for _, key in ipairs({ ready, held, present, absent }) do
  redis.call('ZREM', key, site .. ' ' .. slot)
end
redis.call('XADD', changes, 'MAXLEN', '~', keep, (number + 1) .. '-' .. nonce,
  'site', site, 'slot', slot, 'seq', seq, 'why', 'left')
return { 'LEFT' }
