#!lua
-- arrive: put rows of sales that have come into a site's book, each unless its id stands there.
-- KEYS[1] {journal}:SITE hash
-- ARGV[1] how many rows a book has at the most
-- ARGV[2] how many rows have come
-- then for each row:
--   request id, 16 raw bytes
--   the row, packed: pending, or put aside
--   the same as it is put beside another that stands under its id, packed
-- Reply: for each row FIRST, DIFFERENTLY (another sale stands under its id, and it is put beside it), FULL (it is not there), or AGAIN and
-- behind it two bytes of the row that stands: what became of the sale, and why it was put aside.
-- Invariant: a row that is not put aside stands until what became of it is written over it.
assert(#KEYS == 1, 'arrive takes 1 key')
local count = tonumber(ARGV[2])
assert(#ARGV == 2 + 3 * count, 'arrive takes 2 numbers and 3 arguments for each row')
local book, most = KEYS[1], tonumber(ARGV[1])

-- The mark is the first 8 bytes of a row, the ninth is what became of it, and it came at bytes 21 to 26.
local ASIDE = 6
local function mark(row)
  return string.sub(row, 1, 8)
end
local function is_aside(row)
  return string.byte(row, 9) == ASIDE
end

local replies = {}
for i = 3, #ARGV, 3 do
  local id, row, beside = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local stood = redis.call('HGET', book, id)
  local put, aside, reply = nil, nil, 'FIRST'
  if not stood then
    put = row
  elseif mark(stood) == mark(row) then
    if is_aside(stood) and not is_aside(row) then
      put = string.sub(row, 1, 20) .. string.sub(stood, 21, 26) .. string.sub(row, 27)
    else
      reply = 'AGAIN' .. string.sub(stood, 9, 10)
    end
  elseif is_aside(stood) then
    put, aside = row, stood
  else
    aside, reply = beside, 'DIFFERENTLY'
  end
  local more = 0
  if put and not stood then more = more + 1 end
  if aside and redis.call('HEXISTS', book, id .. mark(aside)) == 0 then more = more + 1 end
  if more > 0 and redis.call('HLEN', book) >= most then
    reply = 'FULL'
  else
    if put then
      redis.call('HSET', book, id, put)
      redis.call('HDEL', book, id .. mark(put))
    end
    if aside then
      redis.call('HSET', book, id .. mark(aside), aside)
    end
  end
  replies[#replies + 1] = reply
end
return replies
