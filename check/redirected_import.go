package check

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"path"
	"slices"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/image"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "redirected-import",
		Title:     "Functions of libraries that were redirected in network services",
		Severity:  High,
		Technique: "T1055", // Process Injection
		Source:    "of processes with sockets of the internet: the tables of addresses that programs and libraries call others through (DT_JMPREL, the GOT), against the symbols that the image defines to which each leads",
		Proves: `A program or library calls a function of another by an address that is not that of any function of the name: it leads to memory of no file, or to code of an image
that does not define it. The dynamic linker puts no such address there, unless an auditing library (LD_AUDIT)
has it do so. Injectors do, to have a running service call their code, and so do tools that instrument their own process.`,
		Blind: `Processes without sockets, and 32-bit ones. A library that defines a function of the same name: preload looks for those that were put in front. Addresses that a program keeps
elsewhere. Images that export by the old table of hashes alone.`,
		Next: `Disassemble where the address leads with the command shown, and take that memory out with "outsight extract". Who traced the process: the view ptrace.`,
		Example: `The address by which a service calls accept was led to memory that an injector had mapped:

    $ outsight check lab:demo --only redirected-import
    SEVERITY  CONFIDENCE  CHECK              TITLE
    high      likely      redirected-import  process 812 (sshd) calls accept by an address that is not that of accept`,
		Run: redirectedImports,
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
}

func redirectedImports(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		ps, err := s.Programs()
		if err != nil {
			yield(nil, err)
			return
		}
		ks, err := s.Sockets()
		if err != nil {
			yield(nil, err)
			return
		}
		onNetwork := map[int32]bool{}
		for _, k := range ks.all {
			if ofNetwork(k) {
				for _, pid := range k.PIDs {
					onNetwork[pid] = true
				}
			}
		}
		w := &importWalk{s: s, known: map[importKey]bool{}}
		for _, p := range ps.all {
			if ctx.Err() != nil {
				return
			}
			if !onNetwork[p.PID] {
				continue
			}
			for _, f := range w.process(p) {
				if !yield(f, nil) {
					return
				}
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
	for _, i := range images {
		imports, err := image.ImportsOf(j.memory, i.Start)
		if err != nil {
			continue
		}
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
	}
	return fs
}

// importsOf is a process while its imports are judged.
type importsOf struct {
	w       *importWalk
	p       *program
	images  []*linux.MappedImage
	memory  *linux.FilledMemory
	exports map[*linux.MappedImage]*image.Exports // nil: not to be told
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
	return f
}
