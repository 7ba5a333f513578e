package planted

// The ring. Each element of the map is of one processor: a page of control words, an area of a power of two bytes,
// and room behind it for the end of the record that begins last in the area, so that none is in two pieces.
const (
	page = 4096

	// What the control page has. Programs write it, nobody else.
	controlMagic    = 0   // ringMagic, once a program has run
	controlHead     = 64  // how many bytes were ever reserved, and not given back
	controlCount    = 72  // how many records were ever begun
	controlTask     = 128 // of the last system call that began here and is not known to have ended: its task
	controlSwitches = 136 // … how often that had been switched away from: until it is again, no other call of it can have come between
	controlStamp    = 144 // … the stamp of its record
	controlFault    = 152 // … whether something could not be read
	controlBegan    = 160 // … when it began, of one that has no record of its entry
	controlBeats    = 192 // runs of the program that runs in idle guests, too
	controlBeatTime = 200 // … and the time of the last
	controlAnchors  = 256 // for each part of the area, the last position in it that a record was begun at
	anchors         = 16

	ringMagic = 0x31676e6972736f01 // the last digits are the version

	// A record: its mark, which is its position + 1 and is written last, then what [plugin.Record] has, with how many bytes lead to the next record in
	// place of its size.
	recordMark     = 0
	recordSpan     = 8
	recordProbe    = 12
	recordFlags    = 14
	recordSequence = 16
	recordTime     = 24
	recordWords    = 32
	recordLength   = 36 // of the record with its mark; while it is written, where the next item goes
	recordHead     = 40

	// maxRecord bounds a record with all that is reserved for it.
	maxRecord = 16 << 10

	minArea     = 128 << 10
	maxArea     = 2 << 20 // 6.1 has no map with larger values than 4 MiB
	defaultArea = 1 << 20
	maxRings    = 64 << 20 // bytes of all processors together, unless the user asks for more
)

// elementSize is how many bytes an element has for an area.
func elementSize(area uint32) uint32 { return page + area + maxRecord }

// ringName is the name of the map.
const ringName = "outsight_ring"
