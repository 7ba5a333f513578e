package syscall

import "strconv"

func init() {
	for name, k := range map[string]custom{
		"cpusin":      {fn: argCPUs, pieces: countedPiece(Entry, -1, 1024)},
		"cpusout":     {fn: argCPUs, pieces: resultPiece(1024)},
		"handlein":    {fn: argHandleIn, pieces: bytesPiece(Entry, 136, 136, false)},
		"handleout":   {fn: argHandleOut, pieces: handlePieces, fresh: true},
		"capin":       {fn: argCaps, pieces: bytesPiece(Entry, 24, 24, false)},
		"capout":      {fn: argCaps, pieces: bytesPiece(Return, 24, 24, false)},
		"bpfobj":      {fn: argBPFObject, pieces: bpfObjectPieces, fresh: true},
		"comm":        {fn: argComm, pieces: func(_ ABI, i int) []Piece { return []Piece{{Arg: i, Shape: String, Limit: 15}} }},
		"iovaddr":     {fn: argIovecAddresses, pieces: func(abi ABI, i int) []Piece { return iovecPieces(Entry)(abi, i)[:1] }},
		"msgbufin":    {fn: argMessageBuffer, pieces: messageBufferPieces(Entry), fresh: true},
		"msgbufout":   {fn: argMessageBuffer, pieces: messageBufferPieces(Return), fresh: true},
		"uringparams": {fn: argUringParams, pieces: bothPieces(120, 120), fresh: true},
		"sigsetnext":  {fn: argSetOfNext, pieces: bytesPiece(Entry, 8, 8, false)},
		"sigframe":    {fn: argSignalFrame, stack: signalFrame},
		"sendmmsg":    {fn: argMessages, pieces: messagesPieces(Entry), fresh: true},
		"recvmmsg":    {fn: argMessages, pieces: messagesPieces(Return), fresh: true},
	} {
		customs[name] = k
	}
}

// resultPiece is as many bytes as the call returned.
func resultPiece(limit uint32) func(ABI, int) []Piece {
	return func(_ ABI, arg int) []Piece {
		return []Piece{{Arg: arg, When: Return, Size: 1, Count: Count{From: Result}, Limit: limit}}
	}
}

// argCPUs writes a set of processors.
func argCPUs(dst []byte, x ctx, a *Arg, i int) []byte {
	b := a.bytes(x, 0, 1)
	if x.arg(i) == 0 || a.when(x, a.tag) == Return && !x.v.succeeded() {
		return appendPointer(dst, x.arg(i))
	}
	if b == nil {
		if d, ok := x.v.find(a.tag); ok && d.Status == Whole {
			return append(dst, "[]"...)
		}
		return appendPointer(dst, x.arg(i))
	}
	dst = append(dst, '[')
	first := true
	for cpu := range 8 * len(b) {
		if b[cpu/8]>>(cpu%8)&1 == 0 {
			continue
		}
		if !first {
			dst = append(dst, ' ')
		}
		first = false
		dst = strconv.AppendInt(dst, int64(cpu), 10)
	}
	return append(dst, ']')
}

func handlePieces(abi ABI, arg int) []Piece {
	before := bytesPiece(Entry, 8, 8, false)(abi, arg)
	return append(before, bytesPiece(Return, 136, 136, true)(abi, arg)...)
}

func argHandleIn(dst []byte, x ctx, a *Arg, i int) []byte {
	b := a.bytes(x, 0, 8)
	if b == nil {
		return appendPointer(dst, x.arg(i))
	}
	dst = strconv.AppendUint(append(dst, "{handle_bytes="...), uint64(le.Uint32(b)), 10)
	return append(appendHandle(dst, b), '}')
}

func argHandleOut(dst []byte, x ctx, a *Arg, i int) []byte {
	before, after := a.bytes(x, 0, 8), a.bytes(x, 1, 8)
	if before == nil {
		return appendPointer(dst, x.arg(i))
	}
	const overflow = -75 // EOVERFLOW
	dst = strconv.AppendUint(append(dst, "{handle_bytes="...), uint64(le.Uint32(before)), 10)
	if after != nil && (x.v.succeeded() || x.v.Returned && x.v.Result == overflow) {
		if n := le.Uint32(after); n != le.Uint32(before) {
			dst = strconv.AppendUint(append(dst, " => "...), uint64(n), 10)
		}
		if x.v.succeeded() {
			dst = appendHandle(dst, after)
		}
	}
	return append(dst, '}')
}

func appendHandle(dst, b []byte) []byte {
	dst = strconv.AppendInt(append(dst, ", handle_type="...), int64(int32(le.Uint32(b[4:]))), 10)
	dst = append(dst, `, f_handle="`...)
	n := min(uint64(le.Uint32(b)), 128)
	for _, c := range b[8:min(uint64(len(b)), 8+n)] {
		dst = append(dst, '\\', 'x', "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
	}
	dst = append(dst, '"')
	if le.Uint32(b) > 128 {
		dst = append(dst, "..."...)
	}
	return dst
}

// argCaps writes capabilities. Their version is in the header, the argument before.
func argCaps(dst []byte, x ctx, a *Arg, i int) []byte {
	b := a.bytes(x, 0, 24)
	args, _ := x.variantOf()
	h, ok := x.v.find(args[0].tag)
	if b == nil || x.arg(i) == 0 || !ok || len(h.Bytes) < 4 || a.when(x, a.tag) == Return && !x.v.succeeded() {
		return appendPointer(dst, x.arg(i))
	}
	two := le.Uint32(h.Bytes) != 0x19980330 // _LINUX_CAPABILITY_VERSION_1
	for k, name := range [...]string{"{effective=", ", permitted=", ", inheritable="} {
		v := uint64(le.Uint32(b[4*k:]))
		if two {
			v |= uint64(le.Uint32(b[12+4*k:])) << 32
		}
		dst = appendCaps(append(dst, name...), v)
	}
	return append(dst, '}')
}

func appendCaps(dst []byte, v uint64) []byte {
	if v == 0 {
		return append(dst, '0')
	}
	names := setOf("cap")
	first := true
	for n := uint64(0); n < 64; n++ {
		if v>>n&1 == 0 {
			continue
		}
		name := names.name(n)
		if name == "" {
			continue
		}
		if !first {
			dst = append(dst, '|')
		}
		first = false
		dst = append(append(dst, "1<<"...), name...)
		v &^= 1 << n
	}
	if v == 0 {
		return dst
	}
	if first {
		return append(appendHex(dst, v), " /* CAP_??? */"...)
	}
	return appendHex(append(dst, '|'), v)
}

func bpfObjectPieces(_ ABI, arg int) []Piece {
	return []Piece{
		{Arg: arg, Size: 1, Count: Count{From: Argument, N: 2}, Limit: 16},
		{Arg: arg, Deref: []uint32{0}, Shape: String, Limit: maxPath},
	}
}

func argBPFObject(dst []byte, x ctx, a *Arg, i int) []byte {
	b := a.bytes(x, 0, 12)
	if b == nil {
		return appendPointer(dst, x.arg(i))
	}
	dst = append(dst, "{pathname="...)
	if d, ok := x.v.find(a.tag + 1); ok && d.Status == Whole {
		dst = appendQuoted(dst, d.Bytes)
	} else {
		dst = appendPointer(dst, le.Uint64(b))
	}
	dst = strconv.AppendInt(append(dst, ", bpf_fd="...), int64(int32(le.Uint32(b[8:]))), 10)
	dst = append(dst, ", file_flags="...)
	flags := uint64(0)
	if len(b) >= 16 {
		flags = uint64(le.Uint32(b[12:]))
	}
	return append(setOf("bpfmapflags").flags(dst, flags), '}')
}

// argComm writes the name of a thread, which has at most 15 bytes.
func argComm(dst []byte, x ctx, a *Arg, i int) []byte {
	d, ok := x.v.find(a.tag)
	if x.arg(i) == 0 || !ok || d.Status == Unreadable {
		return appendPointer(dst, x.arg(i))
	}
	dst = appendQuoted(dst, d.Bytes)
	if d.Status == Cut {
		dst = append(dst, "..."...)
	}
	return dst
}

// argIovecAddresses writes pairs that lead to other memory than the caller's.
func argIovecAddresses(dst []byte, x ctx, a *Arg, i int) []byte {
	w := x.c.ABI.Width()
	n := x.arg(i + 1)
	if x.arg(i) != 0 && n == 0 {
		return append(dst, "[]"...)
	}
	b := a.bytes(x, 0, 2*w)
	if b == nil {
		return appendPointer(dst, x.arg(i))
	}
	dst = append(dst, '[')
	for k := uint64(0); k < n; k++ {
		if k > 0 {
			dst = append(dst, ", "...)
		}
		if len(b) < 2*w || k >= uint64(x.o.limit()) {
			dst = append(dst, "..."...)
			break
		}
		dst = appendPointer(append(dst, "{iov_base="...), number(b[:w]))
		dst = append(strconv.AppendUint(append(dst, ", iov_len="...), number(b[w:2*w]), 10), '}')
		b = b[2*w:]
	}
	return append(dst, ']')
}

// number is a word of 4 or 8 bytes.
func number(b []byte) uint64 {
	if len(b) == 4 {
		return uint64(le.Uint32(b))
	}
	return le.Uint64(b)
}

// messageBufferPieces are a message's type and its text.
func messageBufferPieces(when When) func(ABI, int) []Piece {
	return func(abi ABI, arg int) []Piece {
		w := uint32(abi.Width())
		n := Count{From: Argument, N: uint32(arg + 1)}
		if when == Return {
			n = Count{From: Result}
		}
		return []Piece{
			{Arg: arg, When: when, Size: w, Count: Count{From: Fixed, N: 1}, Limit: w},
			{Arg: arg, When: when, Add: w, Size: 1, Count: n, Limit: maxData, Data: true},
		}
	}
}

func argMessageBuffer(dst []byte, x ctx, a *Arg, i int) []byte {
	w := x.c.ABI.Width()
	b, d := a.bytes(x, 0, w), a.bytes(x, 1, 0)
	out := a.when(x, a.tag) == Return
	if b == nil || x.arg(i) == 0 || out && !x.v.succeeded() {
		return appendPointer(dst, x.arg(i))
	}
	n := x.arg(i + 1)
	if out {
		n = uint64(x.v.Result)
	}
	kind := int64(number(b[:w]))
	if w == 4 {
		kind = int64(int32(kind))
	}
	dst = append(strconv.AppendInt(append(dst, "{mtype="...), kind, 10), ", mtext="...)
	return append(appendBytes(dst, d, n, x.o.limit()), '}')
}

func argUringParams(dst []byte, x ctx, a *Arg, i int) []byte {
	b := a.bytes(x, 0, 120)
	if b == nil {
		return appendPointer(dst, x.arg(i))
	}
	u := func(dst []byte, name string, v uint32) []byte {
		return strconv.AppendUint(append(dst, name...), uint64(v), 10)
	}
	flags := uint64(le.Uint32(b[8:]))
	dst = setOf("uringsetup").flags(append(dst, "{flags="...), flags)
	dst = appendHex(append(dst, ", sq_thread_cpu="...), uint64(le.Uint32(b[12:])))
	dst = u(dst, ", sq_thread_idle=", le.Uint32(b[16:]))
	if flags&0x20 != 0 { // IORING_SETUP_ATTACH_WQ
		dst = u(dst, ", wq_fd=", le.Uint32(b[24:]))
	}
	b = a.bytes(x, 1, 120)
	if b == nil || !x.v.succeeded() {
		return append(dst, '}')
	}
	dst = u(dst, ", sq_entries=", le.Uint32(b))
	dst = u(dst, ", cq_entries=", le.Uint32(b[4:]))
	dst = setOf("uringfeat").flags(append(dst, ", features="...), uint64(le.Uint32(b[20:])))
	sq, cq := b[40:], b[80:]
	for k, name := range [...]string{", sq_off={head=", ", tail=", ", ring_mask=", ", ring_entries=", ", flags=", ", dropped=", ", array="} {
		dst = u(dst, name, le.Uint32(sq[4*k:]))
	}
	dst = appendHex(append(dst, ", user_addr="...), le.Uint64(sq[32:]))
	for k, name := range [...]string{"}, cq_off={head=", ", tail=", ", ring_mask=", ", ring_entries=", ", overflow=", ", cqes=", ", flags="} {
		dst = u(dst, name, le.Uint32(cq[4*k:]))
	}
	return append(appendHex(append(dst, ", user_addr="...), le.Uint64(cq[32:])), "}}"...)
}

// argSetOfNext writes a set of signals whose size is the next argument.
func argSetOfNext(dst []byte, x ctx, a *Arg, i int) []byte {
	b := a.bytes(x, 0, 8)
	if b == nil || x.arg(i+1) != 8 {
		return appendPointer(dst, x.arg(i))
	}
	return appendSet(dst, le.Uint64(b), 8)
}

// signalFrame is the mask in what the kernel has put on the stack when it delivered a signal.
func signalFrame(abi ABI) []Piece {
	at := uint32(296) // in struct ucontext
	if abi == ABI32 {
		at = 248 // behind the arguments of the handler
	}
	return []Piece{{Add: at, Size: 8, Count: Count{From: Fixed, N: 1}, Limit: 8}}
}

func argSignalFrame(dst []byte, x ctx, a *Arg, _ int) []byte {
	b := a.bytes(x, 0, 8)
	if b == nil {
		return append(dst, "{...}"...)
	}
	return append(appendSet(append(dst, "{mask="...), le.Uint64(b), 8), '}')
}

// maxMessages is how many messages of sendmmsg are fetched: as many as a resolver sends.
const maxMessages = 2

// messagesPieces are the messages as an array, what each leads to, and the array as it was
// before.
func messagesPieces(when When) func(ABI, int) []Piece {
	return func(abi ABI, arg int) []Piece {
		size := messageLayout(abi).size + uint32(abi.Width())
		array := Piece{Arg: arg, When: Return, Always: when == Entry, Size: size, Count: Count{From: Fixed, N: maxMessages}, Limit: maxMessages * size}
		before := array
		before.When, before.Always = Entry, false
		all := []Piece{array, before}
		for k := range uint32(maxMessages) {
			all = append(all, messageAt(abi, arg, when, k*size)...)
		}
		return all
	}
}

func argMessages(dst []byte, x ctx, a *Arg, i int) []byte {
	m := messageLayout(x.c.ABI)
	size := int(m.size) + x.c.ABI.Width()
	array, before := a.bytes(x, 0, size), a.bytes(x, 1, size)
	n := x.arg(i+1) & 0xffffffff
	received := a.when(x, a.tag+2) == Return
	if received {
		n = 0
		if x.v.succeeded() {
			n = uint64(x.v.Result)
		}
	}
	switch {
	case x.arg(i) == 0:
		return append(dst, "NULL"...)
	case n == 0 && x.v.Returned && (!received || !x.v.failed()):
		return append(dst, "[]"...)
	case array == nil && before == nil || received && !x.v.succeeded():
		return appendHex(dst, x.arg(i))
	}
	dst = append(dst, '[')
	for k := 0; uint64(k) < n; k++ {
		if k > 0 {
			dst = append(dst, ", "...)
		}
		if k >= maxMessages {
			dst = append(dst, "..."...)
			break
		}
		room, total, sent := int64(-1), ^uint64(0), -1
		if len(array) >= (k+1)*size && x.v.succeeded() && int64(k) < x.v.Result {
			sent = int(le.Uint32(array[k*size+int(m.size):]))
		}
		if received {
			total = uint64(max(sent, 0))
			if len(before) >= (k+1)*size {
				room = int64(int32(le.Uint32(before[k*size+int(m.nameLength):])))
			}
		}
		dst = a.message(append(dst, "{msg_hdr="...), x, x.arg(i)+uint64(k*size), a.tag+2+5*k, room, total)
		if sent >= 0 {
			dst = strconv.AppendInt(append(dst, ", msg_len="...), int64(sent), 10)
		}
		dst = append(dst, '}')
	}
	return append(dst, ']')
}
