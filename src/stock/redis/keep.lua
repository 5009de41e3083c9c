#!lua
-- keep: put a picture whose chunks are there in the place of the one that was kept last.
-- KEYS[1] {stock}:picture            hash
-- KEYS[2] {stock}:picture:GENERATION hash, the new chunks
-- KEYS[3] the same of the picture that is to be replaced
-- ARGV[1] generation of the picture that is to be replaced, text; empty for none
-- ARGV[2] generation of the new one, text
-- ARGV[3] its length, bytes
-- ARGV[4] its checksum, 32 raw bytes
-- Reply: KEPT; or OTHER and the generation that stands there when it is another one: nothing changes then.
-- Invariant: the chunks that are pointed to have no TTL, and no others are without one.
assert(#KEYS == 3, 'keep takes 3 keys')
assert(#ARGV == 4, 'keep takes 4 arguments')
local picture, chunks, old_chunks = KEYS[1], KEYS[2], KEYS[3]
local old, generation, length, checksum = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local stands = redis.call('HGET', picture, 'generation') or ''
if stands ~= old then
  return { 'OTHER', stands }
end
redis.call('PERSIST', chunks)
redis.call('HSET', picture, 'generation', generation, 'length', length, 'checksum', checksum)
redis.call('UNLINK', old_chunks)
return { 'KEPT' }
