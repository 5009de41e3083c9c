#!lua
-- sweep: removes from one record what is older than a given time, by both of its times.
--
-- KEYS[1] record: string, its entries, each >c16BBBI4I6I6 (request id, length of the rest, state, flags, units, at,
--   mark) and the site (1 to 16 bytes)
-- ARGV[1] before: integer, ms since 1970; what is as old or younger stays
-- Reply: number of entries removed; -1 if the record cannot be read
-- Invariants: an entry stays while its at or its mark is not before that time; the key goes with its last entry; a
-- record that cannot be read is left as it is, and is no error: the sweep goes on to the others.
assert(#KEYS == 1, 'sweep takes 1 keys')
assert(#ARGV == 1, 'sweep takes 1 arguments')
local record = KEYS[1]
local before = tonumber(ARGV[1])
local ENTRY, FIXED, SOLD, CLOSED, NEVER, UNREADABLE = '>c16BBBI4I6I6', 35, 1, 6, 281474976710655, -1
assert(before and before >= 0 and before <= NEVER, 'ARGV[1] must be an instant')

local stored = redis.pcall('GET', record) or ''
if type(stored) == 'table' then return UNREADABLE end
local kept, removed, place = {}, 0, 1
while place <= #stored do
  if place + FIXED > #stored then return UNREADABLE end
  local _, size, state, flags, _, at, mark, rest = struct.unpack(ENTRY, stored, place)
  local after = place + 17 + size
  if state < SOLD or state > CLOSED or flags >= 8 or rest >= after or after > #stored + 1 then return UNREADABLE end
  if at < before and mark < before then
    removed = removed + 1
  else
    kept[#kept + 1] = string.sub(stored, place, after - 1)
  end
  place = after
end
if removed > 0 and #kept > 0 then redis.call('SET', record, table.concat(kept)) end
if removed > 0 and #kept == 0 then redis.call('DEL', record) end
return removed
