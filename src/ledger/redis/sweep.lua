#!lua
-- sweep: removes from one record what is older than a given time, by both of its times.
--
-- KEYS[1] record: hash, request id (16 bytes) to packed entry (>BBI4I6I6 and the site)
-- ARGV[1] before: integer, ms since 1970; what is as old or younger stays
-- Reply: number of entries removed; -1 if the record cannot be read
-- Invariants: an entry stays while its at or its mark is not before that time; the key goes with its last entry; a
-- record that cannot be read is left as it is, and is no error: the sweep goes on to the others.
assert(#KEYS == 1, 'sweep takes 1 keys')
assert(#ARGV == 1, 'sweep takes 1 arguments')
local record = KEYS[1]
local before = tonumber(ARGV[1])
local SOLD, CLOSED, NEVER, UNREADABLE = 1, 6, 281474976710655, -1
assert(before and before >= 0 and before <= NEVER, 'ARGV[1] must be an instant')

local fields = redis.pcall('HGETALL', record)
if fields.err then return UNREADABLE end
local old = {}
for i = 1, #fields, 2 do
  local id, value = fields[i], fields[i + 1]
  if #id ~= 16 or #value < 19 then return UNREADABLE end
  local state, flags, _, at, mark = struct.unpack('>BBI4I6I6', value)
  if state < SOLD or state > CLOSED or flags >= 8 then return UNREADABLE end
  if at < before and mark < before then old[#old + 1] = id end
end
if #old > 0 then redis.call('HDEL', record, unpack(old)) end
return #old
