package linux

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/virt"
)

// MappedImage is a file with code that a process has mapped: its program, the loader, a
// library.
type MappedImage struct {
	Start, End virt.Addr // of the file's mappings; End is the first address behind the last
	Path       string
	Deleted    bool
	Device     Device
	Inode      uint64
	Program    bool // it is what the process was started from
	Err        error

	dentry virt.Addr
}

// Images yields the files with code that t has mapped, by address: runs of mappings of
// one file, of which at least one may be executed. Anonymous memory behind the last of
// them, which holds variables without a value, is not counted.
func (l *ProcessReader) Images(ctx context.Context, t Task) iter.Seq2[*MappedImage, error] {
	return func(yield func(*MappedImage, error) bool) {
		mm, err := t.MM()
		if err != nil {
			yield(nil, fmt.Errorf("images of task %#x: %w", uint64(t.Addr), err))
			return
		}
		if mm == 0 {
			return
		}
		program := l.program(mm)
		show := func(i *MappedImage) bool {
			if i == nil {
				return true
			}
			i.Program = i.dentry == program && program != 0
			return yield(i, i.Err)
		}
		runs := imageRuns{}
		for m, err := range l.MappingsOf(ctx, mm) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if !show(runs.add(m)) {
				return
			}
		}
		show(runs.end())
	}
}

// ImagesAmong are the files with code among the mappings of one process, as
// [ProcessReader.Images] yields them, but without which of them is the program. The
// mappings are by address, as [ProcessReader.Mappings] yields them.
func ImagesAmong(maps []*Mapping) (files []*MappedImage) {
	runs := imageRuns{}
	for _, m := range maps {
		if i := runs.add(m); i != nil {
			files = append(files, i)
		}
	}
	if i := runs.end(); i != nil {
		files = append(files, i)
	}
	return files
}

// program is the dentry of the file that a process was started from; 0 where it cannot
// be read. Of a file in an overlay the inode would not do: see [ProcessReader.opened].
func (l *ProcessReader) program(mm virt.Addr) (dentry virt.Addr) {
	o, err := l.s.mapsLayout()
	if err != nil {
		return 0
	}
	r := &l.r
	r.Err = nil
	if file := r.Ptr(mm + virt.Addr(l.s.o.exeFile)); file != 0 {
		dentry, _ = l.opened(file, o)
	}
	if err := r.Err; err != nil {
		return 0
	}
	return dentry
}

// imageRuns joins mappings that come by address into runs of one file.
type imageRuns struct {
	run    *MappedImage
	code   bool
	offset uint64
}

// add takes the next mapping, and returns the run that it ends if that has code.
func (r *imageRuns) add(m *Mapping) (done *MappedImage) {
	if m.File == 0 {
		return nil
	}
	goesOn := r.run != nil && r.run.Inode == m.Inode && r.run.Device == m.Device && m.Offset >= r.offset && m.Offset > 0
	if !goesOn {
		done = r.end()
		r.run = &MappedImage{Start: m.Start, Path: m.Path, Deleted: m.Deleted, Device: m.Device, Inode: m.Inode, dentry: m.dentry}
	}
	if m.Err != nil {
		r.run.Err = m.Err
	}
	r.run.End, r.offset = m.End, m.Offset
	r.code = r.code || m.Flags&VMExec != 0
	return done
}

// end returns the last run if it has code.
func (r *imageRuns) end() (done *MappedImage) {
	if r.code {
		done = r.run
	}
	r.run, r.code, r.offset = nil, false, 0
	return done
}
