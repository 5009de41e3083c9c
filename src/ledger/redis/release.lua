#!lua
-- release: gives a hold back: at once, or when it ran out if that was before.
--
-- KEYS[1] record: string, its entries, each >c16BBBI4I6I6 (request id, length of the rest, state, flags, units, at,
--   mark) and the site (1 to 16 bytes)
-- KEYS[2] outbox: stream, the one of the record's partition; an event is its kind, then the entry and the origin
-- KEYS[3] ring: string, the ring of keys under which this partition is written
-- KEYS[4] previous: string, the buyer's record under the key that the ring has left; none: the record again
-- ARGV[1] asked: packed, the entry as it is to stand if it is closed now; its at is the service's clock, ms since 1970
-- ARGV[2] origin: text, the programme's code and the terminal, a space after each
-- ARGV[3] ours: text, the ring that the call was made under, a key's number and the mark
-- ARGV[4] left: text, the ring that ours follows while both records are read, or nothing
-- Reply: packed, >sBI6 (word; replayed, 0 or 1; at, ms since 1970) and the record after the call
--   outcomes: RELEASED ALREADY_SOLD VOIDED NOT_FOUND NOT_YOURS
--   errors: BUYER_RECORD_FULL
--   or OTHER_RING, and behind it the ring that the partition is written under
-- Invariants: reads everything, decides, writes everything; the event and the record in one step; an error writes
-- nothing; times are arguments, there is no clock here.
assert(#KEYS == 4, 'release takes 4 keys')
assert(#ARGV == 4, 'release takes 4 arguments')
local record, outbox, ring, previous = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local asked, origin, ours, left = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local SOLD, HELD, RELEASED, VOIDED, REFUSED, CLOSED = 1, 2, 3, 4, 5, 6
local ENTRY, LATE, MOST_DEAD, OUTBOX = '>c16BBBI4I6I6', 2, 16, '20000'
local request, length, unused, _, _, now, _, rest = struct.unpack(ENTRY, asked)
local site = string.sub(asked, rest)
assert(#site >= 1 and #site <= 16 and length == 18 + #site and unused == CLOSED, 'asked must be a closed entry')
local AGAIN = { [SOLD] = 'ALREADY_SOLD', [RELEASED] = 'RELEASED', [VOIDED] = 'VOIDED', [REFUSED] = 'NOT_FOUND',
                [CLOSED] = 'NOT_FOUND' }

-- Read. All of it at once: a buyer has one record, under the key of the ring or under the one that it has left. Every
-- entry is decoded once; `at` becomes the later of the service's clock and the newest online entry.
local read = left == '' and redis.call('MGET', ring, record) or redis.call('MGET', ring, record, previous)
if read[1] ~= ours then
  -- Nobody writes under a ring that another has left, and nobody moves on but from the one before.
  if read[1] and (left == '' or read[1] ~= left) then return struct.pack('>sBI6', 'OTHER_RING', 0, now) .. read[1] end
  redis.call('SET', ring, ours)
end
local stored = (read[2] or '') .. (read[3] or '')
local entries, mine, at, dead, place = {}, nil, now, 0, 1
while place <= #stored do
  local id, size, state, flags, units, when, mark, rest = struct.unpack(ENTRY, stored, place)
  local after = place + 17 + size
  assert(state >= SOLD and state <= CLOSED and flags < 8 and rest < after and after <= #stored + 1,
    'an entry is of another layout')
  local entry = { place = place, after = after, id = id, state = state, flags = flags, units = units, at = when,
                  mark = mark, site = string.sub(stored, rest, after - 1) }
  entries[#entries + 1] = entry
  if id == request then mine = entry end
  if bit.band(flags, LATE) == 0 and when > at then at = when end
  place = after
end
for i = 1, #entries do
  local entry = entries[i]
  entry.counts = entry.state == SOLD or (entry.state == HELD and at < entry.mark)
  if entry.site == site and not entry.counts then dead = dead + 1 end
end

-- Decide: the word, the entry that is put into the record, and its event.
local word, replayed, entry, event = nil, 1, nil, nil
if not mine and dead >= MOST_DEAD then
  word, replayed = 'BUYER_RECORD_FULL', 0
elseif not mine then
  word, replayed = 'NOT_FOUND', 0
  entry = struct.pack(ENTRY, request, length, CLOSED, 0, 0, at, at) .. site
elseif mine.site ~= site then
  word = 'NOT_YOURS'
elseif mine.state == HELD then
  word, replayed, event = 'RELEASED', 0, 'released'
  local mark = math.min(mine.mark, at)
  entry = struct.pack(ENTRY, request, length, RELEASED, mine.flags, mine.units, mine.at, mark) .. site
else
  word = AGAIN[mine.state]
end

-- Write. The outbox first: should it be unwritable, the script ends there and the record is as it was. It is cut to its
-- length in about one step of sixteen, by the millisecond.
if entry then
  stored = mine and string.sub(stored, 1, mine.place - 1) .. entry .. string.sub(stored, mine.after) or stored .. entry
  if event then redis.call('XADD', outbox, '*', event, entry .. origin) end
  if at % 16 == 0 then redis.call('XTRIM', outbox, 'MAXLEN', '~', OUTBOX) end
  redis.call('SET', record, stored)
  if read[3] then redis.call('DEL', previous) end
end
return struct.pack('>sBI6', word, replayed, at) .. stored
