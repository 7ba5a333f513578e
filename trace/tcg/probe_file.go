package tcg

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/arch/x86/x86asm"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/image"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/virt/x86"
)

// A probe in a program or library stands in the page of the page cache that has its code: all processes that map the file
// run it there, those that are started later, too, and none has to be changed. The kernel may drop the page and read it
// again elsewhere; so its place is looked at again and again.

// fileProbe is where a probe in a file stands.
type fileProbe struct {
	place   filePlace
	inode   *linux.INode
	offsets []uint64 // in the file
	at      []phys.Addr
	looked  time.Time // when the file was looked for
}

const (
	// fileCheck is how often the places of probes in files are looked at.
	fileCheck = 250 * time.Millisecond
	// fileRenew is how often the file is looked for again: another may have its name now.
	fileRenew = 10 * time.Second
)

// parseFileProbe reads "PATH:SYMBOL[+OFFSET|%return] [LABEL=]ARG …", or PATH:0xOFFSET in the file.
func parseFileProbe(text string, words []string) (*userProbe, error) {
	place, err := parseFilePlace(words[0])
	if err != nil {
		return nil, err
	}
	p := &userProbe{text: text, name: words[0], file: &fileProbe{place: place}}
	e := expression{back: place.back}
	return p, p.parseArgs(&e, words[1:])
}

// filePlace is a place in a file as the user writes it.
type filePlace struct {
	path, symbol string // empty symbol: offset is in the file
	offset       uint64 // behind the symbol
	back         bool
}

func parseFilePlace(text string) (p filePlace, err error) {
	colon := strings.LastIndexByte(text, ':')
	switch {
	case colon < 0 || colon+1 == len(text):
		return p, errors.New("a function is missing: write PATH:FUNCTION or PATH:0xOFFSET")
	case colon == 0:
		return p, errors.New("a path is missing: write PATH:FUNCTION or PATH:0xOFFSET")
	}
	p.path, p.symbol = text[:colon], text[colon+1:]
	p.symbol, p.back = strings.CutSuffix(p.symbol, "%return")
	name, offset, moved := strings.Cut(p.symbol, "+")
	if p.symbol != "" && p.symbol[0] >= '0' && p.symbol[0] <= '9' {
		name, offset, moved = "", p.symbol, true
	}
	if p.symbol = name; moved {
		if p.offset, err = strconv.ParseUint(offset, 0, 62); err != nil {
			return p, fmt.Errorf("invalid offset %q", offset)
		}
		if p.back {
			return p, errors.New("%return goes with a function, without an offset")
		}
	}
	if p.symbol == "" && !moved {
		return p, errors.New("a function is missing: write PATH:FUNCTION or PATH:0xOFFSET")
	}
	return p, nil
}

// find finds the place in the guest.
func (f *fileProbe) find(ctx context.Context, s *linux.System) (err error) {
	f.looked = time.Now()
	place, offsets := f.place, []uint64{f.place.offset}
	var inode *linux.INode
	for task, err := range s.Processes(ctx) {
		if err != nil {
			return fmt.Errorf("the guest's first process: %w", err)
		}
		if inode, err = s.FindFile(ctx, task, place.path); err != nil {
			return err
		}
		break
	}
	if inode == nil {
		return errors.New("the guest has no processes")
	}
	r := s.NewCachedReader(inode)
	if place.symbol != "" {
		fn, err := image.FindFunction(r, place.symbol)
		if errors.Is(err, linux.ErrNotCached) {
			return fmt.Errorf("%w: run the program once, so that the guest has read them, or write the function's offset in the file: %s:0xOFFSET", err, place.path)
		}
		if err != nil {
			return err
		}
		offsets[0] += fn.Offset
		if place.back {
			if offsets, err = returnsIn(r, fn); err != nil {
				return fmt.Errorf("where %s returns: %w", place.symbol, err)
			}
		}
	}
	if offsets[0] >= inode.Size {
		return fmt.Errorf("offset %#x is behind the end of %s, which has %#x bytes", offsets[0], place.path, inode.Size)
	}
	f.inode, f.offsets = inode, offsets
	return nil
}

// returnsIn are the instructions with which a function of a file returns.
func returnsIn(r *linux.CachedReader, fn image.Function) (offsets []uint64, err error) {
	if fn.Size == 0 || fn.Size > maxFunction {
		return nil, fmt.Errorf("its size of %d bytes is not between 1 and %d", fn.Size, maxFunction)
	}
	code := make([]byte, fn.Size)
	if _, err := r.ReadAt(code, int64(fn.Offset)); err != nil {
		return nil, err
	}
	for i := 0; i < len(code); {
		inst, err := x86.Decode(code[i:])
		if err != nil {
			i++
			continue
		}
		if inst.Op == x86asm.RET {
			offsets = append(offsets, fn.Offset+uint64(i))
		}
		i += inst.Len
	}
	if len(offsets) == 0 {
		return nil, errors.New("it has no instruction for that: it ends with a jump to another function, or never")
	}
	return offsets, nil
}

// places are the guest-physical addresses of the probe's instructions, as far as they are in memory.
func (f *fileProbe) places(s *linux.System) (at []phys.Addr) {
	if f.inode == nil {
		return nil
	}
	for _, off := range f.offsets {
		if pa, ok, err := s.CachedAt(f.inode, off); ok && err == nil {
			at = append(at, pa)
		}
	}
	return at
}

// patience is how long nothing is checked if nothing happens.
func (s *Stream) patience() time.Duration {
	for _, p := range s.join.probes {
		if p.file != nil {
			return fileCheck
		}
	}
	return checkEvery
}

// setFiles finds where probes in files stand. That one is not there is an error at the start; later, what was there may
// come back.
func (s *Stream) setFiles(ctx context.Context, l *guest.Look, probes []*userProbe) error {
	for _, p := range probes {
		if p.file == nil {
			continue
		}
		if err := p.file.find(ctx, l.Linux); err != nil && s.records == nil {
			return fmt.Errorf("probe %q: %w", p.text, err)
		}
		p.file.at = p.file.places(l.Linux)
	}
	return nil
}

// moved says whether a probe in a file has to be set again.
func (j *joiner) moved(ctx context.Context, l *guest.Look) (moved bool) {
	for _, p := range j.probes {
		f := p.file
		if f == nil {
			continue
		}
		if time.Since(f.looked) > fileRenew || f.inode == nil && time.Since(f.looked) > fileRenew/10 {
			if err := f.find(ctx, l.Linux); err != nil {
				f.inode = nil
			}
		}
		moved = moved || !slices.Equal(f.at, f.places(l.Linux))
	}
	return moved
}

// drain takes in what the last program has left in its rings.
func (s *Stream) drain(ctx context.Context) {
	var rec plugin.Record
	for s.records.Wait(ctx, &rec, time.Microsecond) == nil {
		s.join.take(ctx, s.records, &rec)
		if rec.Flags&plugin.Waits != 0 {
			s.records.Continue(&rec)
		}
	}
}

// idExec is the mark of records that say that a process runs another program.
const idExec = 170

// execs writes a program that says when a process begins to run another program: then its name is to be read again.
func (c *compiler) execs(s *linux.System) {
	for _, name := range []string{"finalize_exec", "proc_exec_connector"} {
		if at, ok := s.Address(name); ok {
			c.Probe(plugin.Probe{Where: plugin.AtAddress, Address: uint64(at), ID: idExec})
			c.Aside()
			c.current()
			c.End()
			return
		}
	}
}
