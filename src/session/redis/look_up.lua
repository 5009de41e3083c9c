-- look_up.lua: how a seat stands; changes nothing.
-- KEYS[1] {door}:sites   hash
-- ARGV[1] site code, text
-- ARGV[2] slot
-- ARGV[3] terminal name, text
-- ARGV[4] fence
-- Reply: LIVE, REPLACED or LOST.
assert(#KEYS == 1, 'look_up.lua takes 1 key')
assert(#ARGV == 4, 'look_up.lua takes 4 arguments')
local sites = KEYS[1]
local site, slot, terminal, fence = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local line = redis.call('HGET', sites, site) or '0'
local holder, held_fence = string.match(line, ';' .. slot .. '=(%S+) (%d+)')
if holder == terminal and held_fence == fence then
  return { 'LIVE' }
elseif holder or string.find(line, '=' .. terminal .. ' ', 1, true) then
  return { 'REPLACED' }
end
return { 'LOST' }
