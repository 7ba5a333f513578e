package hooks

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// MiscFormat is an interpreter registered with binfmt_misc.
type MiscFormat struct {
	Addr        virt.Addr // of the entry
	Namespace   uint64    // inode number of its user namespace; 0 before 6.7: there is one list
	Name        string
	Enabled     bool   // the entry is on
	Active      bool   // and so is binfmt_misc itself
	Interpreter string // path of the program
	Program     string // BPF program that says what the interpreter is, instead of the path and the magic (7.3)
	Flags       string // of P, O, C, F, T, L and D, as /proc/sys/fs/binfmt_misc/NAME shows them
	Extension   string // of file names; empty where a magic identifies them
	Magic, Mask []byte // Mask is empty if all bits of Magic count
	Offset      int    // of the magic in the file, in bytes
}

// miscNode is the entry of binfmt_misc. Its type is in the module's own types, not in the
// kernel's, and is the same from 5.10 to 7.3: list, flags, offset, size, magic, mask,
// interpreter, name. Since 7.3 the list is an hlist, whose nodes begin as others do.
const (
	miscFlags, miscOffset, miscSizeOf, miscMagic, miscMask, miscInterpreter, miscName = 16, 24, 28, 32, 40, 48, 56
	miscProgram                                                                       = 80 // name of a BPF program, of entries with miscBPF (7.3)

	miscMagical, miscBPF = 1 << 1, 1 << 2 // of the flags

	miscNodeSize = 64
	maxMisc      = 1 << 14
	maxMagic     = 256 // BINPRM_BUF_SIZE
	maxMiscText  = 1920
)

type miscLayout struct{ ofNamespace, entries, enabled kobj.Field }

// miscList is one list of entries, and whether any of it is used.
type miscList struct {
	head      virt.Addr
	hashed    bool // an hlist (7.3)
	namespace uint64
	on        bool
}

// MiscFormats yields the interpreters registered with binfmt_misc, those registered last
// first, as exec asks them; none where it is not loaded. Since 6.7 each user namespace can
// have a list of its own.
func MiscFormats(ctx context.Context, s *linux.System) iter.Seq2[*MiscFormat, error] {
	return func(yield func(*MiscFormat, error) bool) {
		lists, errs := miscLists(ctx, s)
		for _, l := range lists {
			nodes := s.List
			if l.hashed {
				nodes = s.HList
			}
			for node, err := range nodes(ctx, l.head, maxMisc) {
				var f *MiscFormat
				if err == nil {
					f, err = miscFormat(s, node, l.hashed)
				}
				if err != nil {
					err = fmt.Errorf("binfmt_misc: %w", err)
				} else {
					f.Namespace, f.Active = l.namespace, f.Enabled && l.on
				}
				if !yield(f, err) {
					return
				}
			}
		}
		for _, err := range errs {
			if !yield(nil, fmt.Errorf("binfmt_misc: %w", err)) {
				return
			}
		}
	}
}

// miscLists finds the lists of entries.
func miscLists(ctx context.Context, s *linux.System) (lists []miscList, errs []error) {
	o, err := kobj.LayoutOf(s.Walker, "binfmt_misc", func(r *kobj.Resolver, o *miscLayout) {
		r.Prefetch("misc_format")
		o.ofNamespace = r.Optional("user_namespace", "binfmt_misc") // 6.7
		o.entries, o.enabled = r.Optional("binfmt_misc", "entries"), r.Optional("binfmt_misc", "enabled")
	})
	if err != nil {
		return nil, []error{err}
	}
	if o.ofNamespace.Present() && o.entries.Present() && o.enabled.Present() {
		for n, err := range s.Namespaces(ctx) {
			if n == nil {
				errs = append(errs, err)
				continue
			}
			if n.Kind != "user" {
				continue
			}
			l := miscList{namespace: n.Inode, hashed: o.entries.Size == 8}
			var misc virt.Addr
			r := s.Reader()
			if misc = r.Pointer(n.Addr, o.ofNamespace); misc != 0 {
				l.head, l.on = o.entries.At(misc), r.Uint(misc, o.enabled) != 0
			}
			err = r.Err
			switch {
			case err != nil:
				errs = append(errs, err)
			case misc != 0:
				lists = append(lists, l)
			}
		}
		return lists, errs
	}
	head, ok := s.ModuleSymbol("binfmt_misc", "entries")
	if !ok {
		if _, builtIn := s.Address("misc_format"); builtIn {
			// Its list is called "entries", as others in the kernel are.
			errs = append(errs, fmt.Errorf("%w: it is built into the kernel", kobj.ErrUnsupported))
		}
		return nil, errs
	}
	l := miscList{head: head, on: true}
	if enabled, ok := s.ModuleSymbol("binfmt_misc", "enabled"); ok {
		v, err := s.Space.U32(enabled)
		l.on = v != 0
		if err != nil {
			errs = append(errs, err)
		}
	}
	return []miscList{l}, errs
}

// miscFormat reads the entry at a. Only since 7.3 a BPF program may stand for the interpreter.
func miscFormat(s *linux.System, a virt.Addr, bpf bool) (*MiscFormat, error) {
	fail := func(err error) (*MiscFormat, error) { return nil, fmt.Errorf("entry at %#x: %w", uint64(a), err) }
	var b [miscNodeSize]byte
	r := s.Reader()
	if !r.ReadInto(b[:], a) {
		return fail(r.Err)
	}
	f := parseMiscNode(b[:])
	f.Addr = a
	word := func(off int) virt.Addr { return virt.Addr(binary.LittleEndian.Uint64(b[off:])) }
	f.Name = r.CString(word(miscName), maxMiscText)
	if bpf = bpf && b[miscFlags]&miscBPF != 0; !bpf {
		f.Interpreter = r.CString(word(miscInterpreter), maxMiscText)
	}
	size := binary.LittleEndian.Uint32(b[miscSizeOf:])
	switch {
	case bpf:
		f.Program = r.CString(r.Pointer(a, kobj.FieldAt(miscProgram, 8)), maxMiscText)
	case b[miscFlags]&miscMagical == 0:
		f.Extension = r.CString(word(miscMagic), maxMiscText)
	case size > maxMagic:
		return fail(fmt.Errorf("%w: a magic of %d bytes", kobj.ErrBroken, size))
	default:
		f.Magic = append(f.Magic, r.Bytes(word(miscMagic), int(size))...)
		if mask := word(miscMask); mask != 0 {
			f.Mask = append(f.Mask, r.Bytes(mask, int(size))...)
		}
	}
	if r.Err != nil {
		return fail(r.Err)
	}
	return f, nil
}

// parseMiscNode takes what is in the entry itself.
func parseMiscNode(b []byte) *MiscFormat {
	flags := binary.LittleEndian.Uint64(b[miscFlags:])
	f := &MiscFormat{Enabled: flags&1 != 0}
	if flags&miscMagical != 0 {
		f.Offset = int(int32(binary.LittleEndian.Uint32(b[miscOffset:])))
	}
	var letters strings.Builder
	for i, letter := range "POCFTLD" { // from bit 31 downward; T, L and D since 7.3
		if flags>>(31-i)&1 != 0 {
			letters.WriteRune(letter)
		}
	}
	f.Flags = letters.String()
	return f
}
