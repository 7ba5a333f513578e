package syscall

import "strconv"

// custom is an argument that is written by a function of its own, with the memory that it
// needs.
type custom struct {
	fn     func(dst []byte, x ctx, a *Arg, i int) []byte
	pieces func(abi ABI, arg int) []Piece
	typ    string
	stack  func(abi ABI) []Piece // memory on the stack
	fresh  bool                  // its pieces follow each other
}

var customs map[string]custom

func init() {
	customs = map[string]custom{
		"pair":        {fn: argPair},
		"split":       {fn: argSplit},
		"highlow":     {fn: argHighLow},
		"iovin":       {fn: argIovecIn, pieces: iovecPieces(Entry), fresh: true},
		"iovout":      {fn: argIovecOut, pieces: iovecPieces(Return), fresh: true},
		"clone":       {fn: argClone, pieces: clonePieces, fresh: true},
		"clone3":      {fn: argClone3, pieces: clone3Pieces, fresh: true},
		"wstatus":     {fn: argStatus, pieces: bytesPiece(Return, 4, 4, false)},
		"wrusage":     {fn: argWaitUsage, pieces: bytesPiece(Return, 144, 72, false), typ: "rusage"},
		"nanorem":     {fn: argRemaining, pieces: bytesPiece(Return, 16, 8, true), typ: "timespec"},
		"nanorem64":   {fn: argRemaining, pieces: bytesPiece(Return, 16, 16, true), typ: "timespec64"},
		"pollfds":     {fn: argPoll, pieces: pollPieces, fresh: true},
		"fdset":       {fn: argFDSet, pieces: bothPieces(128, 128), fresh: true},
		"timeleft":    {fn: argTimeLeft, pieces: bothPieces(16, 8), typ: "timespec", fresh: true},
		"timeleft64":  {fn: argTimeLeft, pieces: bothPieces(16, 16), typ: "timespec64", fresh: true},
		"timevalleft": {fn: argTimeLeft, pieces: bothPieces(16, 8), typ: "timeval", fresh: true},
		"pselectmask": {fn: argSelectMask, pieces: selectMaskPieces, fresh: true},
		"protocol":    {fn: argProtocol},
		"optname":     {fn: argOptionName},
		"optin":       {fn: argOptionIn, pieces: optionPieces(Entry), fresh: true},
		"optout":      {fn: argOptionOut, pieces: optionPieces(Return), fresh: true},
		"sendmsg":     {fn: argSendMessage, pieces: messagePieces(Entry), fresh: true},
		"recvmsg":     {fn: argReceiveMessage, pieces: messagePieces(Return), fresh: true},
		"openhow":     {fn: argOpenHow, pieces: countedPiece(Entry, 1, 24)},
		"mincore": {fn: argResident, pieces: func(_ ABI, i int) []Piece {
			return []Piece{{Arg: i, When: Return, Size: 1, Count: Count{From: Fixed, N: maxElements + 1}, Limit: maxElements + 1}}
		}},
		"request": {fn: argRequest, typ: "u32=ioctl"},
		"ifreq":   {fn: argInterface, pieces: bothPieces(interfaceSize, interfaceSize32), fresh: true},
		"oldmmap": {fn: argOldMmap, pieces: bytesPiece(Entry, 24, 24, false)},
	}
}

// bytesPiece is one structure, of a size for each ABI.
func bytesPiece(when When, size, size32 uint32, always bool) func(ABI, int) []Piece {
	return func(abi ABI, arg int) []Piece {
		n := size
		if abi == ABI32 {
			n = size32
		}
		return []Piece{{Arg: arg, When: when, Always: always, Size: n, Count: Count{From: Fixed, N: 1}, Limit: n}}
	}
}

// bothPieces is one structure, before and after.
func bothPieces(size, size32 uint32) func(ABI, int) []Piece {
	return func(abi ABI, arg int) []Piece {
		p := bytesPiece(Entry, size, size32, false)(abi, arg)
		return append(p, bytesPiece(Return, size, size32, false)(abi, arg)...)
	}
}

// countedPiece is bytes of which the argument that is next by offset says how many.
func countedPiece(when When, next int, limit uint32) func(ABI, int) []Piece {
	return func(_ ABI, arg int) []Piece {
		return []Piece{{Arg: arg, When: when, Size: 1, Count: Count{From: Argument, N: uint32(arg + next)}, Limit: limit}}
	}
}

// bytes returns what was fetched for a piece of the argument's, if it is at least size bytes.
func (a *Arg) bytes(x ctx, n, size int) []byte {
	if a.tag < 0 {
		return nil
	}
	d, ok := x.v.find(a.tag + n)
	if !ok || len(d.Bytes) < size {
		return nil
	}
	return d.Bytes
}

// argResident writes which pages of the range in the first arguments are resident.
func argResident(dst []byte, x ctx, a *Arg, i int) []byte {
	length := x.arg(1)
	pages := length / 4096
	if length%4096 != 0 {
		pages++
	}
	d, ok := x.v.find(a.tag)
	switch {
	case x.arg(i) == 0 || !ok || !x.v.succeeded():
		return appendPointer(dst, x.arg(i))
	case pages == 0:
		return append(dst, "[]"...)
	case len(d.Bytes) == 0:
		return appendHex(dst, x.arg(i))
	}
	dst = append(dst, '[')
	for k := range pages {
		if k > 0 {
			dst = append(dst, ", "...)
		}
		if k >= uint64(len(d.Bytes)) || k >= uint64(x.o.limit()) {
			dst = append(dst, "..."...)
			break
		}
		dst = append(dst, '0'+d.Bytes[k]&1)
	}
	return append(dst, ']')
}

// argPair is 64 bits in two arguments of 32, of which the call has a second that is not shown.
func argPair(dst []byte, x ctx, _ *Arg, i int) []byte {
	return strconv.AppendInt(dst, int64(x.arg(i)|x.arg(i+1)<<32), 10)
}

// argSplit is a position that preadv has in two words.
func argSplit(dst []byte, x ctx, a *Arg, i int) []byte {
	if x.c.ABI == ABI32 {
		return argPair(dst, x, a, i)
	}
	return strconv.AppendInt(dst, int64(x.arg(i)), 10)
}

func argHighLow(dst []byte, x ctx, _ *Arg, i int) []byte {
	return strconv.AppendInt(dst, int64(x.arg(i)<<32|x.arg(i+1)), 10)
}

// argRequest writes ioctl's request.
func argRequest(dst []byte, x ctx, a *Arg, i int) []byte {
	v := x.arg(i) & 0xffffffff
	if name := a.t.set.name(v); name != "" {
		return append(dst, name...)
	}
	dst = append(dst, "_IOC("...)
	dir := v >> 30
	dst = append(dst, [...]string{"_IOC_NONE", "_IOC_WRITE", "_IOC_READ", "_IOC_READ|_IOC_WRITE"}[dir]...)
	for _, part := range [...]uint64{v >> 8 & 0xff, v & 0xff, v >> 16 & 0x3fff} {
		dst = appendHex(append(dst, ", "...), part)
	}
	return append(dst, ')')
}

func argOpenHow(dst []byte, x ctx, a *Arg, i int) []byte {
	b := a.bytes(x, 0, 24)
	if b == nil {
		return appendPointer(dst, x.arg(i))
	}
	flags, mode, resolve := le.Uint64(b), le.Uint64(b[8:]), le.Uint64(b[16:])
	dst = setOf("open").flags(append(dst, "{flags="...), flags)
	if flags&0x400040 != 0 || mode != 0 {
		dst = append(dst, ", mode="...)
		if mode != 0 {
			dst = append(dst, '0')
		} else {
			dst = append(dst, "00"...)
		}
		dst = strconv.AppendUint(dst, mode, 8)
	}
	dst = setOf("resolve").flags(append(dst, ", resolve="...), resolve)
	return append(dst, '}')
}

// argOldMmap is ia32's first mmap: its arguments lie in memory.
func argOldMmap(dst []byte, x ctx, a *Arg, i int) []byte {
	b := a.bytes(x, 0, 24)
	if b == nil {
		return appendPointer(dst, x.arg(i))
	}
	word := func(n int) uint64 { return uint64(le.Uint32(b[4*n:])) }
	dst = appendPointer(append(dst, '{'), word(0))
	dst = strconv.AppendUint(append(dst, ", "...), word(1), 10)
	dst = setOf("prot").flags(append(dst, ", "...), word(2))
	dst = styleMmap(append(dst, ", "...), x, word(3))
	dst = strconv.AppendInt(append(dst, ", "...), int64(int32(word(4))), 10)
	return append(appendHex(append(dst, ", "...), word(5)), '}')
}
