#!lua
-- settle: write down what became of rows that are pending.
-- KEYS[1] {journal}:SITE hash
-- ARGV[1] how many rows
-- then for each row:
--   request id, 16 raw bytes
--   the row, packed, as it becomes; when it came is kept as it stands
-- Reply: OK.
-- Invariant: what became of a row is said once.
assert(#KEYS == 1, 'settle takes 1 key')
local book, count = KEYS[1], tonumber(ARGV[1])
assert(#ARGV == 1 + 2 * count, 'settle takes a number and 2 arguments for each row')

-- The mark is the first 8 bytes of a row, and the ninth is what became of it; it came at bytes 21 to 26.
local PENDING = 1
for i = 2, #ARGV, 2 do
  local id, row = ARGV[i], ARGV[i + 1]
  local stood = redis.call('HGET', book, id)
  if stood and string.sub(stood, 1, 8) == string.sub(row, 1, 8) and string.byte(stood, 9) == PENDING then
    local came = string.sub(stood, 21, 26)
    redis.call('HSET', book, id, string.sub(row, 1, 20) .. came .. string.sub(row, 27))
  end
end
return redis.status_reply('OK')
