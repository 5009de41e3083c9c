#!lua
-- release: gives a hold back: at once, or when it ran out if that was before.
--
-- KEYS[1] record: hash, request id (16 bytes) to packed entry (>BBI4I6I6 and the site)
-- KEYS[2] outbox: stream, the one of the record's partition
-- ARGV[1] request id: 16 bytes
-- ARGV[2] request id: text, a hyphenated UUID
-- ARGV[3] site: text, 1 to 16 bytes
-- ARGV[4] terminal: text
-- ARGV[5] programme: text, the short code
-- ARGV[6] now: integer, ms since 1970 by the service's clock
-- Reply: word, replayed (0 or 1), at (integer, ms since 1970), the record after the call (name, value, ...)
--   outcomes: RELEASED ALREADY_SOLD VOIDED NOT_FOUND NOT_YOURS
--   errors: BUYER_RECORD_FULL
-- Invariants: reads everything, decides, writes everything; the event and the record in one step; an error writes
-- nothing; times are arguments, there is no clock here.
assert(#KEYS == 2, 'release takes 2 keys')
assert(#ARGV == 6, 'release takes 6 arguments')
local record, outbox = KEYS[1], KEYS[2]
local request, request_text, site, terminal, programme = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local now = tonumber(ARGV[6])
local SOLD, HELD, RELEASED, VOIDED, REFUSED, CLOSED = 1, 2, 3, 4, 5, 6
local NEVER, LATE, MOST_DEAD, OUTBOX = 281474976710655, 2, 16, 20000
local AGAIN = { [SOLD] = 'ALREADY_SOLD', [RELEASED] = 'RELEASED', [VOIDED] = 'VOIDED', [REFUSED] = 'NOT_FOUND',
                [CLOSED] = 'NOT_FOUND' }
assert(#request == 16 and #request_text == 36, 'ARGV[1] and ARGV[2] must be a request id')
assert(#site >= 1 and #site <= 16, 'ARGV[3] must be a site code')
assert(now and now >= 0 and now <= NEVER, 'ARGV[6] must be an instant')

-- Read. Every entry is decoded once; `at` becomes the later of the service's clock and the newest online entry.
local fields = redis.call('HGETALL', record)
local entries, mine, at = {}, nil, now
for i = 1, #fields, 2 do
  local state, flags, units, when, mark, rest = struct.unpack('>BBI4I6I6', fields[i + 1])
  assert(state >= SOLD and state <= CLOSED and flags < 8, 'an entry is of another layout')
  local entry = { index = i, id = fields[i], value = fields[i + 1], state = state, flags = flags, units = units,
                  at = when, mark = mark, site = string.sub(fields[i + 1], rest) }
  entries[#entries + 1] = entry
  if entry.id == request then mine = entry end
  if bit.band(flags, LATE) == 0 and when > at then at = when end
end
local function counts(entry) return entry.state == SOLD or (entry.state == HELD and at < entry.mark) end

-- Decide. `put` changes only what will be answered; nothing is written before the end.
local writes, events = {}, {}
local function put(index, id, value)
  fields[index], fields[index + 1] = id, value
  writes[#writes + 1], writes[#writes + 2] = id, value
end
local function tell(kind, units, when, said)
  events[1] = { 'kind', kind, 'programme', programme, 'request', request_text, 'site', site, 'terminal', terminal,
                'quantity', units, 'at', when, 'stated', said }
end
local function full()
  local dead = 0
  for _, entry in ipairs(entries) do
    if entry.site == site and not counts(entry) then dead = dead + 1 end
  end
  return dead >= MOST_DEAD
end
local word, replayed = nil, 1
if not mine then
  if full() then return { 'BUYER_RECORD_FULL', 0, at, fields } end
  word, replayed = 'NOT_FOUND', 0
  put(#fields + 1, request, struct.pack('>BBI4I6I6', CLOSED, 0, 0, at, at) .. site)
elseif mine.site ~= site then
  word = 'NOT_YOURS'
elseif mine.state == HELD then
  word, replayed = 'RELEASED', 0
  local mark = math.min(mine.mark, at)
  put(mine.index, request, struct.pack('>BBI4I6I6', RELEASED, mine.flags, mine.units, mine.at, mark) .. site)
  tell('released', mine.units, mine.at, '')
else
  word = AGAIN[mine.state]
end

-- Write. The outbox first: should it be unwritable, the script ends there and the record is as it was.
for _, event in ipairs(events) do
  redis.call('XADD', outbox, 'MAXLEN', '~', OUTBOX, '*', unpack(event))
end
if #writes > 0 then redis.call('HSET', record, unpack(writes)) end
return { word, replayed, at, fields }
