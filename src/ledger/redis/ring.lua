#!lua
-- ring: moves a partition to the ring that follows the one under which it was written.
--
-- KEYS[1] ring: string, the ring of keys under which this partition is written
-- ARGV[1] ours: text, the ring to be written under, a key's number and the mark
-- ARGV[2] left: text, the ring that ours follows, or nothing
-- Reply: the ring as it stands now
-- Invariants: a partition moves from no ring, or from the one that ours follows, and from no other.
assert(#KEYS == 1, 'ring takes 1 keys')
assert(#ARGV == 2, 'ring takes 2 arguments')
local ring = KEYS[1]
local ours, left = ARGV[1], ARGV[2]
local stands = redis.call('GET', ring)
if stands == ours or (stands and (left == '' or stands ~= left)) then return stands end
redis.call('SET', ring, ours)
return ours
