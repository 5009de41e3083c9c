#!lua
-- sweep: removes what counts no more and is older than a given time from one record.
--
-- KEYS[1] record: hash, request id (16 bytes) to packed entry (>BBI4I6I6 and the site)
-- ARGV[1] before: integer, ms since 1970; what is as old or younger stays
-- Reply: number of entries removed
-- Invariants: a hold stays until it has run out before that time too; the key goes with its last entry.
assert(#KEYS == 1, 'sweep takes 1 keys')
assert(#ARGV == 1, 'sweep takes 1 arguments')
local record = KEYS[1]
local before = tonumber(ARGV[1])
local HELD, NEVER = 2, 281474976710655
assert(before and before >= 0 and before <= NEVER, 'ARGV[1] must be an instant')

local fields = redis.call('HGETALL', record)
local old = {}
for i = 1, #fields, 2 do
  local state, _, _, at, mark = struct.unpack('>BBI4I6I6', fields[i + 1])
  if at < before and (state ~= HELD or mark < before) then old[#old + 1] = fields[i] end
end
if #old > 0 then redis.call('HDEL', record, unpack(old)) end
return #old
