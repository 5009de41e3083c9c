-- leave.lua: give a place up, or the seat that it has become if its terminal has not come for it.
-- KEYS[1] {door}:sites   hash
-- KEYS[2] {door}:ready   sorted set
-- KEYS[3] {door}:held    sorted set
-- KEYS[4] {door}:present sorted set
-- KEYS[5] {door}:absent  sorted set
-- KEYS[6] {door}:renewed sorted set
-- KEYS[7] {door}:sold    sorted set
-- KEYS[8] {door}:changes stream
-- ARGV[1] site code, text
-- ARGV[2] slot
-- ARGV[3] terminal name, text
-- ARGV[4] seq
-- ARGV[5] nonce of the change that this call writes, 0 to 2^64-1
-- ARGV[6] how many changes the stream keeps, about
-- Reply: LEFT, or GONE when it is another place by now, or none; nothing changes then.
-- Invariant: only the place with this number of this terminal is given up.
assert(#KEYS == 8, 'leave.lua takes 8 keys')
assert(#ARGV == 6, 'leave.lua takes 6 arguments')
local sites, ready, held, present, absent = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local renewed, sold, changes = KEYS[6], KEYS[7], KEYS[8]
local site, slot, terminal, seq, nonce, keep = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

-- Read.
local line = redis.call('HGET', sites, site) or '0'
local who, its = string.match(line, ';' .. slot .. '~(%S+) (%d+)')
local holder, fence, was = string.match(line, ';' .. slot .. '=(%S+) (%d+) %d+ (%d+)')
local granted = holder == terminal and was == seq
local newest = redis.call('XREVRANGE', changes, '+', '-', 'COUNT', 1)[1]
local number = newest and tonumber(string.match(newest[1], '^%d+')) or 0

-- Decide.
if not granted and (who ~= terminal or its ~= seq) then
  return { 'GONE' }
end

-- Write.
redis.call('HSET', sites, site, (string.gsub(line, ';' .. slot .. '[=~][^;]*', '', 1)))
for _, key in ipairs({ ready, held, present, absent, renewed, sold }) do
  redis.call('ZREM', key, site .. ' ' .. slot)
end
redis.call('XADD', changes, 'MAXLEN', '~', keep, (number + 1) .. '-' .. nonce,
  'site', site, 'slot', slot, granted and 'fence' or 'seq', granted and fence or seq, 'why', granted and 'closed' or 'left')
return { 'LEFT' }
