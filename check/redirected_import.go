package check

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/image"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "redirected-import",
		Title:     "Functions of libraries that were redirected in a process",
		Severity:  High,
		Technique: "T1055", // Process Injection
		Source:    "of all processes: the tables of addresses that programs and libraries call others through (DT_JMPREL, the GOT), against the symbols that the image defines to which each leads",
		Proves: `A program or library calls a function of another by an address that is not that of any function of the name: it leads to memory of no file, or to code of an image
that does not define it. The dynamic linker puts no such address there, unless an auditing library (LD_AUDIT)
has it do so. Injectors do, to have a running service call their code, and so do tools that instrument their own process.`,
		Blind: `Processes of 32 bits. A library that defines a function of the same name: preload looks for those that were put in front. Addresses that a program keeps
elsewhere. Images that export by the old table of hashes alone.`,
		Next: `Disassemble where the address leads with the command shown, and take that memory out with "outsight extract TARGET --pid PID --address ADDRESS -o FILE". Who traced the process: the view ptrace.`,
		Example: `The address by which a service calls accept was led to memory that an injector had mapped:

    $ outsight check lab:demo --only redirected-import
    SEVERITY  CONFIDENCE  CHECK              TITLE
    high      likely      redirected-import  process 812 (sshd) calls accept by an address that is not that of accept`,
		Kept: true,
		Run:  redirectedImports,
	})
}

// importKey names one import of a file and where it leads, for all processes that have both:
// it is judged once.
type importKey struct {
	from   fileID
	index  int
	to     fileID
	offset virt.Addr
}

type importWalk struct {
	s     *Subject
	known map[importKey]bool // those that are right
	files map[importFile]*image.Imports
	kept  *keptImports
	table []byte
	left  int
}

// importFile is a file whose imports are the same in all processes, but for where they lead.
type importFile struct {
	fileID
	size virt.Addr
}

// keptImports are the tables of addresses that were right at an earlier look: only one that
// changed, or whose process has other images since, is judged again.
type keptImports struct {
	mu    sync.Mutex
	seed  maphash.Seed
	known map[keptTable]uint64 // sums, by a key that nobody knows
}

// keptTable is the table of one image in one process.
type keptTable struct {
	process, image virt.Addr
	pid            int32
	started        time.Duration
}

const (
	maxTables     = 1 << 15 // that one look judges
	maxKeptTables = 1 << 16
)

func redirectedImports(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		ps, err := s.Programs()
		if err != nil {
			yield(nil, err)
			return
		}
		w := &importWalk{
			s: s, known: map[importKey]bool{}, files: map[importFile]*image.Imports{}, left: maxTables,
			kept: kobj.Kept[keptImports](s.Linux.Walker),
		}
		for _, p := range ps.all {
			if ctx.Err() != nil {
				return
			}
			for _, f := range w.process(p) {
				if !yield(f, nil) {
					return
				}
			}
			if w.left <= 0 {
				yield(nil, fmt.Errorf("more than %d tables of addresses changed since the last look: those of process %d and the rest are left to the next", maxTables, p.PID))
				return
			}
		}
	}
}

// maxRedirected bounds what is found of one process.
const maxRedirected = 16

// process judges the imports of a process. Images that cannot be read are swapped out, or
// not loaded whole yet: nothing is said of them.
func (w *importWalk) process(p *program) (fs []*Finding) {
	images := linux.ImagesAmong(p.maps)
	if !slices.ContainsFunc(images, func(i *linux.MappedImage) bool { return isLinker(i.Path) }) {
		return nil
	}
	space, err := w.s.Linux.UserSpace(p.MM)
	if err != nil {
		return nil
	}
	j := &importsOf{w: w, p: p, images: images, memory: w.s.Linux.FilledMemory(space, p.maps), exports: map[*linux.MappedImage]*image.Exports{}}
	layout := j.layout()
	for _, i := range images {
		key := keptTable{p.MM, i.Start, p.PID, p.SinceBoot}
		imports, sum := j.imports(i, layout)
		if imports == nil || w.kept.has(key, sum) {
			continue
		}
		imports, before := imports.At(i.Start, w.table), len(fs)
		j.starting = false
		for _, one := range imports.All {
			name, right := j.judge(i, imports, one)
			if right {
				continue
			}
			fs = append(fs, j.finding(i, one, name))
			if len(fs) >= maxRedirected {
				return fs
			}
		}
		if w.left--; len(fs) == before && !j.starting {
			w.kept.keep(key, sum)
		}
	}
	return fs
}

// layout is a sum of what the judgement of any import of the process rests on besides its address.
func (j *importsOf) layout() []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(j.p.vdso))
	for _, i := range j.images {
		for _, v := range [...]uint64{uint64(i.Start), uint64(i.End), uint64(i.Device), i.Inode} {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
	}
	return b
}

// imports are those of an image, by whichever process had it first, and a sum of where they lead in
// this one, with the table left in w.table. They are nil if it has none, or cannot be read.
func (j *importsOf) imports(i *linux.MappedImage, layout []byte) (*image.Imports, uint64) {
	w := j.w
	file := importFile{fileID{i.Device, i.Inode}, i.End - i.Start}
	imports, known := w.files[file]
	if !known {
		var err error
		if imports, err = image.ImportsOf(j.memory, i.Start); err != nil {
			return nil, 0 // another process may have all of it
		}
		w.files[file] = imports
	}
	if len(imports.All) == 0 {
		return nil, 0
	}
	table, err := imports.Slots(w.table, j.memory, i.Start)
	if err != nil {
		return nil, 0
	}
	w.table = table
	return imports, w.kept.sum(table, layout)
}

func (k *keptImports) sum(table, layout []byte) uint64 {
	k.mu.Lock()
	if k.known == nil {
		k.seed, k.known = maphash.MakeSeed(), map[keptTable]uint64{}
	}
	seed := k.seed
	k.mu.Unlock()
	var h maphash.Hash
	h.SetSeed(seed)
	h.Write(table)
	h.Write(layout)
	return h.Sum64()
}

func (k *keptImports) has(t keptTable, sum uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	known, ok := k.known[t]
	return ok && known == sum
}

func (k *keptImports) keep(t keptTable, sum uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.known) >= maxKeptTables {
		clear(k.known) // most are of processes that ended
	}
	k.known[t] = sum
}

// importsOf is a process while its imports are judged.
type importsOf struct {
	w       *importWalk
	p       *program
	images  []*linux.MappedImage
	memory  *linux.FilledMemory
	exports map[*linux.MappedImage]*image.Exports // nil: not to be told
	// starting says that the dynamic linker has not come to the image that is judged yet.
	starting bool
}

func (j *importsOf) imageAt(a virt.Addr) *linux.MappedImage {
	for _, i := range j.images {
		if a >= i.Start && a < i.End {
			return i
		}
	}
	return nil
}

// judge reports whether an import leads where it should, and its name if that had to be known.
func (j *importsOf) judge(from *linux.MappedImage, imports *image.Imports, one image.Import) (name string, right bool) {
	const vdsoSize = 4 << 12
	if one.Target == 0 || j.p.vdso != 0 && one.Target >= j.p.vdso && one.Target < j.p.vdso+vdsoSize {
		return "", true // nobody defines it, or the kernel
	}
	to := j.imageAt(one.Target)
	key := importKey{from: fileID{from.Device, from.Inode}, index: one.Index}
	if to != nil {
		key.to, key.offset = fileID{to.Device, to.Inode}, one.Target-to.Start
		if j.w.known[key] || to == from && j.lazy(one) {
			j.w.known[key] = true
			return "", true
		}
	}
	name, err := imports.Name(one)
	if err != nil || name == "" {
		return name, true // a function of its own, or one that is not in memory
	}
	if to == nil {
		m := linux.MappingAt(j.p.maps, one.Target)
		if m == nil && j.asLinked(from, one) {
			j.starting = true
			return name, true
		}
		return name, m != nil && m.File != 0 // of a file that is not an image: what is behind it is not known
	}
	exports, known := j.exports[to]
	if !known {
		exports, err = image.ExportsOf(j.memory, to.Start)
		if err != nil {
			exports = nil
		}
		j.exports[to] = exports
	}
	if exports == nil {
		return name, true
	}
	right, err = exports.Defines(name, one.Target)
	if right = right || err != nil && !errors.Is(err, image.ErrNoExports); right {
		j.w.known[key] = true
	}
	return name, right
}

// asLinked reports whether an import has the address that the file has for it, of its own entry of the PLT without
// where the image was loaded: the dynamic linker comes to it when the process has started, and until then it leads nowhere.
func (j *importsOf) asLinked(from *linux.MappedImage, one image.Import) bool {
	one.Target += from.Start
	return one.Target > from.Start && one.Target < from.End && j.lazy(one)
}

// lazy reports whether an import still leads to its own entry of the PLT, which has the
// dynamic linker look for the function at the first call: that pushes the import's index.
func (j *importsOf) lazy(one image.Import) bool {
	var b [9]byte
	if _, err := j.memory.ReadAt(b[:], one.Target); err != nil {
		return true
	}
	code := bytes.TrimPrefix(b[:], []byte{0xf3, 0x0f, 0x1e, 0xfa}) // endbr64
	const push = 0x68
	return code[0] == push && binary.LittleEndian.Uint32(code[1:]) == uint32(one.Index)
}

func (j *importsOf) finding(from *linux.MappedImage, one image.Import, name string) *Finding {
	f := j.p.finding(fmt.Sprintf("calls %s by an address that is not that of %s", name, name), Likely)
	f.Aspect = fmt.Sprintf("%s %d", from.Path, one.Index)
	f.Expected = "an address of a function " + name + ", by the symbols of the image that it is in"
	f.Seen = fmt.Sprintf("%#x, in memory of no file", uint64(one.Target))
	if to := j.imageAt(one.Target); to != nil {
		f.Seen = fmt.Sprintf("%#x, in %s, which has no %s there", uint64(one.Target), path.Base(to.Path), name)
	}
	code := make([]byte, codeShown)
	_, _ = j.memory.ReadAt(code, one.Target)
	f.Evidence = append(f.Evidence, Evidence{Text: "the address, of " + from.Path, Addr: one.Slot}, Evidence{Text: "where it leads", Addr: one.Target, Bytes: code})
	f.Basis = "images in the memory of the process, and the symbols that they define"
	f.Show = fmt.Sprintf("outsight disassemble {} --pid %d %#x", j.p.PID, uint64(one.Target))
	f.nextAddr = one.Target
	return f
}
