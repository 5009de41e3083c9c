#!lua
-- sweep: removes from one record what is older than a given time, by both of its times.
--
-- KEYS[1] record: hash, request id (16 bytes) to packed entry (>BBI4I6I6 and the site)
-- ARGV[1] before: integer, ms since 1970; what is as old or younger stays
-- Reply: number of entries removed
-- Invariants: an entry stays while its at or its mark is not before that time; the key goes with its last entry.
assert(#KEYS == 1, 'sweep takes 1 keys')
assert(#ARGV == 1, 'sweep takes 1 arguments')
local record = KEYS[1]
local before = tonumber(ARGV[1])
local NEVER = 281474976710655
assert(before and before >= 0 and before <= NEVER, 'ARGV[1] must be an instant')

local fields = redis.call('HGETALL', record)
local old = {}
for i = 1, #fields, 2 do
  local _, _, _, at, mark = struct.unpack('>BBI4I6I6', fields[i + 1])
  if at < before and mark < before then old[#old + 1] = fields[i] end
end
if #old > 0 then redis.call('HDEL', record, unpack(old)) end
return #old
