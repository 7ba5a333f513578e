package syscall

import (
	"slices"
	"strings"
	"sync"
)

// Signature is what a guest's kernel says of a system call, for its own tracing (struct
// syscall_metadata).
type Signature struct {
	Name  string   // without "sys_"
	Types []string // "const char *"
	Args  []string // "filename"
}

var signatureTypes = sync.OnceValue(func() *parser { return newParser(ABI64) })

var signatureMutex sync.Mutex // of the parser's types

// FromSignature makes a call of what the guest's kernel says, for one that [Table] does not
// describe. Numbers and addresses are shown as such; file names are fetched. The signature may
// say anything: it is bounded here.
func FromSignature(number int, s Signature) *Call {
	c := &Call{Name: clean(s.Name), Number: number, selector: -1}
	signatureMutex.Lock()
	defer signatureMutex.Unlock()
	p := signatureTypes()
	for i := range min(len(s.Args), len(s.Types), 6) {
		a := Arg{Name: clean(s.Args[i]), Type: clean(s.Types[i]), tag: -1}
		base := typeOf(s.Types[i], s.Args[i])
		if base == "path" {
			a.dir = in
		}
		p.pointer(c, &a, i, base, nil)
		c.Args = append(c.Args, a)
	}
	return c
}

// typeOf is what the notation has for a type of C's.
func typeOf(c, name string) string {
	c = strings.Join(strings.Fields(strings.NewReplacer("__user", "", "const ", "", "struct ", "struct_").Replace(c)), " ")
	if pointed, ok := strings.CutSuffix(c, "*"); ok {
		if strings.TrimSpace(pointed) == "char" && slices.Contains([]string{"filename", "pathname", "path", "name", "oldname", "newname", "dir_name"}, name) {
			return "path"
		}
		return "ptr"
	}
	switch c {
	case "int", "long", "pid_t", "clockid_t", "timer_t", "mqd_t", "key_t", "key_serial_t":
		switch name {
		case "dfd", "dirfd", "olddfd", "newdfd":
			return "dfd"
		case "sig":
			return "sig"
		}
		if c == "long" {
			return "long"
		}
		return "s32"
	case "loff_t", "s64":
		return "s64"
	case "unsigned int", "u32", "__u32", "qid_t":
		if strings.Contains(name, "flags") {
			return "u32.x"
		}
		return "u32"
	case "uid_t", "gid_t":
		return "uid"
	case "umode_t":
		return "umode"
	case "size_t":
		return "ulong"
	}
	return "hex"
}

// clean makes a name of the guest's harmless: letters, digits, and what types are written with.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s[:min(len(s), 128)])
	if s == "" {
		return "?"
	}
	return s
}

// Described says that the table knows the call's arguments. If it does not, [FromSignature] may.
func (c *Call) Described() bool { return len(c.Args) == 0 || c.Args[0].Name != "arg0" }
