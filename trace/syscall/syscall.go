// Package syscall knows the system calls of Linux on x86-64: what to fetch of the memory that their
// arguments lead to, and how to write them, as strace does. It reads no guest itself: [Table] says what to
// fetch, and [Values] brings it.
//
// All that is known of a call is one line of text in calls.txt; structures, flags, and enumerations have
// files of their own. See parse.go for the notation.
package syscall

// ABI is a way into the kernel, with its own numbers and widths.
type ABI uint8

// The ABIs.
const (
	ABI64 ABI = iota // syscall
	ABI32            // int $0x80, sysenter
)

// Width is how many bytes a pointer has.
func (a ABI) Width() int {
	if a == ABI32 {
		return 4
	}
	return 8
}

func (a ABI) String() string {
	if a == ABI32 {
		return "ia32"
	}
	return "64"
}

// Call is a system call.
type Call struct {
	Name   string
	Number int
	ABI    ABI
	// Args are its arguments: at most 6. Where one selects what the others mean (the request of
	// ioctl), these are the ones for a value that is not known.
	Args []Arg
	// Pieces is the guest memory that the arguments lead to. The tag of a piece is its index.
	Pieces []Piece
	// Stack is memory that is found by the stack pointer, not by an argument (Arg has no meaning). Its
	// tags follow those of Pieces.
	Stack []Piece
	// NoReturn says that it never returns: exit, exit_group.
	NoReturn bool

	selector int // argument that selects a variant; -1: none
	mask     uint64
	variants map[uint64]*variant
	result   resultStyle
	subcalls []subcall // by argument 0
}

// variant is a call for some values of its selector.
type variant struct {
	args   []Arg
	result resultStyle
}

// Arg is an argument.
type Arg struct {
	Name string
	Type string // as in calls.txt, or as the guest's kernel has it

	t       *typ // of the value, or of what it points to
	dir     direction
	array   bool
	count   Count
	tag     int // of its first piece
	hidden  bool
	frame   bool // it only exists if it was fetched
	onlyArg int8
	only    uint64 // bits of argument onlyArg, one of which must be set for this argument to exist; 0: always
	fn      func(dst []byte, x ctx, a *Arg, i int) []byte
}

// When says whether memory is read before the call or after it.
type When uint8

// The moments.
const (
	Entry  When = iota
	Return      // only if the call did not fail, unless the piece is Always
)

// Shape is how memory is laid out.
type Shape uint8

// The shapes.
const (
	Bytes   Shape = iota // Count elements of Size bytes: one item
	String               // up to a zero byte: one item, without the zero
	Strings              // what a vector of pointers that ends with NULL leads to: an item for each string
	Vector               // what Count pairs of pointer and length lead to: all bytes one after the other, or an item for each pair
)

// CountFrom says where the number of elements comes from.
type CountFrom uint8

// The sources of a count.
const (
	Fixed    CountFrom = iota // N
	Argument                  // the value of argument N
	Result                    // what the call returned
	Pointed                   // the 32-bit word to which argument N points, when the piece is read
	Member                    // the word of Width bytes at Args[Piece.Arg] + N
)

// Count is how many elements there are.
type Count struct {
	From  CountFrom
	N     uint32
	Width uint8
}

// Condition is for which values of an argument a piece is fetched. To fetch it always is
// harmless.
type Condition struct {
	Arg    int
	Mask   uint64 // bits of the argument that are compared
	Values []uint64
}

// Piece is guest memory that an argument leads to.
type Piece struct {
	Arg    int // whose value is the first pointer
	When   When
	Always bool // also if the call failed
	// Deref are offsets of further pointers to follow: p = *(p + offset), of the ABI's width.
	Deref []uint32
	Add   uint32 // bytes to add to the last pointer
	Shape Shape
	Size  uint32 // bytes of an element
	Count Count
	Limit uint32 // most bytes; of each string for Strings
	// Data says that these are a user's bytes: the user's limit (strace -s) is enough, if it is lower
	// than Limit.
	Data bool
	Most uint32     // strings of Strings
	If   *Condition // nil: always
	// Above leaves out a piece of a return, unless the call returned more than that.
	Above uint32
}

// Status says how much of an item is there.
type Status uint8

// The states of an item, with the numbers that the plugin has for them.
const (
	Whole      Status = 0
	Cut        Status = 1 // there is more
	Unreadable Status = 2 // what follows the bytes that are here
)

// Data is what was fetched for a piece. A piece of several items has several, in order.
type Data struct {
	Tag    uint8
	Status Status
	Bytes  []byte
}

// Values is one call that happened. It is not changed, and may be used again when the text is made.
type Values struct {
	Args     [6]uint64
	Returned bool
	Result   int64
	Data     []Data // in the order of tags, or any other; what was not fetched is not there
	// Path is the path of a directory by its descriptor; empty: unknown. If it is nil, descriptors
	// stay numbers. Path("AT_FDCWD") is asked with -100.
	Path func(fd int64) string
}

// Options says how to write arguments.
type Options struct {
	Limit int // most bytes of a user's data, and elements of an array; 0: 32, as strace has it
}

func (o Options) limit() int {
	if o.Limit <= 0 {
		return 32
	}
	return o.Limit
}

// ctx is what printing needs. It goes by value, so that nothing is allocated.
type ctx struct {
	c *Call
	v *Values
	o Options
}

// failed says that the call returned an error.
func (v *Values) failed() bool { return v.Returned && v.Result < 0 && v.Result >= -4095 }

// succeeded says that what a call gave back is there.
func (v *Values) succeeded() bool { return v.Returned && !v.failed() }

// find returns the first item of a tag.
func (v *Values) find(tag int) (*Data, bool) {
	for i := range v.Data {
		if int(v.Data[i].Tag) == tag {
			return &v.Data[i], true
		}
	}
	return nil, false
}

// arg is the value of an argument, as wide as the ABI has it.
func (x ctx) arg(i int) uint64 {
	if i < 0 || i > 5 {
		return 0
	}
	if x.c.ABI == ABI32 {
		return x.v.Args[i] & 0xffffffff
	}
	return x.v.Args[i]
}

// variantOf returns the arguments of this call, and what its result means.
func (x ctx) variantOf() ([]Arg, resultStyle) {
	if x.c.selector >= 0 {
		if w := x.c.variants[x.arg(x.c.selector)&x.c.mask]; w != nil {
			return w.args, w.result
		}
	}
	return x.c.Args, x.c.result
}

// AppendArgs writes the arguments: AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC.
func (c *Call) AppendArgs(dst []byte, v *Values, o Options) []byte {
	if sub, in := c.inner(v); sub != nil {
		c, v = sub, in
	}
	x := ctx{c, v, o}
	args, _ := x.variantOf()
	first := true
	for i := range args {
		a := &args[i]
		if !a.present(x) {
			continue
		}
		if !first {
			dst = append(dst, ", "...)
		}
		first = false
		dst = a.append(dst, x, i)
	}
	return dst
}

// Fields returns the arguments as NAME=VALUE each.
func (c *Call) Fields(v *Values) []string {
	if sub, in := c.inner(v); sub != nil {
		c, v = sub, in
	}
	x := ctx{c, v, Options{}}
	args, _ := x.variantOf()
	fields := make([]string, 0, len(args))
	var b []byte
	for i := range args {
		a := &args[i]
		if !a.present(x) {
			continue
		}
		b = append(append(b[:0], a.Name...), '=')
		fields = append(fields, string(a.append(b, x, i)))
	}
	return fields
}

// present says that the argument exists for these values.
func (a *Arg) present(x ctx) bool {
	if a.frame {
		if _, ok := x.v.find(a.tag); !ok {
			return false
		}
	}
	return !a.hidden && (a.only == 0 || x.arg(int(a.onlyArg))&a.only != 0)
}
