package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/acquire"
	"github.com/outsight-vmi/outsight/phys/note"
	"github.com/outsight-vmi/outsight/vm"
)

const dumpLong = `Write a guest's memory to a file, or with -o - to standard output.

Formats: raw (byte N is guest-physical address N), elf (a core file for drgn, crash and
others, with the kernel's VMCOREINFO and, where they are known, the registers) and lime. With --zstd the file is compressed so that
outsight reads it in place and any zstd unpacks it. Where memory is zeros a file has holes.

A running guest changes while it is written: --pause stops it meanwhile. The file
appears when it is whole. The checksum that is printed is that of the file's content: holes
count as zeros, and with --zstd it is that of what the file unpacks to. BLAKE3, which b3sum
checks, is summed up by all processors beside the writing; SHA-256 goes from front to back,
which takes two to three times as long as the copy itself.`

// dumpFlags are the flags of "outsight dump".
type dumpFlags struct {
	guest    guestFlags
	file     fileFlags
	format   string
	zstd     bool
	checksum string
}

func newDumpCommand() *cobra.Command {
	var f dumpFlags
	c := &cobra.Command{
		Use:               "dump [TARGET] -o FILE",
		Short:             "Write a guest's memory to a file",
		Long:              dumpLong,
		Example:           "  outsight dump lab:demo -o demo.raw\n  outsight dump lab:demo --pause --format elf --zstd -o demo.elf.zst\n  outsight dump lab:demo --format lime -o - | ssh host 'cat >demo.lime'",
		GroupID:           groupAsk,
		ValidArgsFunction: completeTarget,
		Args:              oneTarget,
		RunE:              func(c *cobra.Command, args []string) error { return f.run(c, optionalTarget(args)) },
	}
	f.guest.add(c)
	f.file.add(c, "write to this `file`; - is standard output", "")
	c.Flags().StringVar(&f.format, "format", string(acquire.Raw), "`FORMAT` of the file: raw, elf or lime")
	c.Flags().BoolVar(&f.zstd, "zstd", false, "compress the file with zstd, readable in place")
	c.Flags().StringVar(&f.checksum, "checksum", string(acquire.BLAKE3), "`SUM` of the content to print: blake3, sha256 or none")
	return c
}

func (f *dumpFlags) run(c *cobra.Command, target string) (err error) {
	o := acquire.Options{Format: acquire.Format(f.format), Zstd: f.zstd, Checksum: acquire.Checksum(f.checksum)}
	if !slices.Contains(acquire.Formats(), o.Format) {
		return usagef("--format: unknown format %q; use raw, elf or lime", f.format)
	}
	if !slices.Contains(acquire.Checksums(), o.Checksum) {
		return usagef("--checksum: unknown checksum %q; use blake3, sha256 or none", f.checksum)
	}
	if err := f.file.check(c, "FILE, or -o - for standard output"); err != nil {
		return err
	}
	path := f.file.path
	src, err := f.open(c.Context(), c.ErrOrStderr(), target)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.done()) }()
	o.Vmcoreinfo, o.CPUs = src.vmcoreinfo, src.cpus
	bar := newProgress(c.ErrOrStderr())
	o.Progress = bar.show
	var r acquire.Result
	if path == stdoutPath {
		r, err = acquire.Write(c.Context(), src.mem, c.OutOrStdout(), o)
	} else {
		r, err = acquire.File(c.Context(), src.mem, path, f.file.force, o)
	}
	bar.clear()
	if err != nil {
		return fmt.Errorf("dump %s: %w", target, err)
	}
	return f.report(c, path, r, bar)
}

// report prints what was written: the checksum as b3sum and sha256sum print it, the rest on
// standard error.
func (f *dumpFlags) report(c *cobra.Command, path string, r acquire.Result, bar *progress) error {
	took := time.Since(bar.start)
	fmt.Fprintf(c.ErrOrStderr(), "outsight: wrote %s in %v (%s/s), %s of it stored; checksum: %s\n",
		mebibytes(r.Size), took.Round(time.Millisecond), mebibytes(uint64(float64(r.Size)/took.Seconds())), mebibytes(r.Stored), f.checksum)
	if r.Unreadable > 0 {
		fmt.Fprintf(c.ErrOrStderr(), "outsight: %s could not be read and are zeros in the dump\n", mebibytes(r.Unreadable))
	}
	if r.Sum == nil {
		return nil
	}
	out := c.OutOrStdout()
	if path == stdoutPath {
		out = c.ErrOrStderr() // the dump is on standard output
	}
	if f.zstd {
		path = strings.TrimSuffix(path, ".zst")
	}
	_, err := fmt.Fprintf(out, "%x  %s\n", r.Sum, path)
	return err
}

// dumpSource is what a dump is made of.
type dumpSource struct {
	mem        phys.Memory
	vmcoreinfo []byte
	cpus       []note.CPU
	done       func() error
}

// open opens the target. Its kernel is looked for because it proves the memory's
// map and has the note that other programs need; a guest without one can still be
// dumped, as long as its map is known.
func (f *dumpFlags) open(ctx context.Context, stderr io.Writer, target string) (*dumpSource, error) {
	post := f.guest
	post.postMortem = true // whatever state it is in, it may be dumped
	g, done, err := post.open(ctx, target)
	if err == nil {
		return &dumpSource{g.Linux.Memory, g.Linux.VmcoreinfoText(), registers(ctx, g.Machine), done}, nil
	}
	noKernel := errors.Is(err, vm.ErrNotStarted) || errors.Is(err, vm.ErrNotDump)
	if !noKernel || ctx.Err() != nil || errors.Is(err, guest.ErrStillPaused) {
		return nil, err
	}
	machine, openErr := openMachine(ctx, target)
	if openErr != nil {
		return nil, openErr
	}
	if p, ok := phys.As[phys.Placeable](machine.Memory); ok && !machine.Proven && len(p.Layouts()) > 1 {
		return nil, errors.Join(fmt.Errorf("%w; and without a kernel nothing proves where its memory is", err), machine.Close())
	}
	fmt.Fprintln(stderr, "outsight: "+sentence(err.Error())+"; its memory is written all the same")
	done = machine.Close
	if f.guest.pause {
		resume, err := guest.Pause(ctx, machine, target)
		if err != nil {
			return nil, errors.Join(err, machine.Close())
		}
		done = func() error { return errors.Join(resume(), machine.Close()) }
	}
	return &dumpSource{machine.Memory, nil, registers(ctx, machine), done}, nil
}

// registers are those of the machine's processors, if its monitor or its dump provides them.
func registers(ctx context.Context, m *vm.Machine) []note.CPU {
	r := m.Control.Registers
	if r == nil {
		return nil
	}
	rs, err := r.Registers(ctx)
	if err != nil {
		return nil // as from a monitor that provides none
	}
	return vm.NotesOf(rs)
}

// progress shows how far a dump is, on a terminal.
type progress struct {
	w           io.Writer // nil: no progress is shown
	start, next time.Time
	shown       bool
}

func newProgress(stderr io.Writer) *progress {
	p := &progress{start: time.Now()}
	p.next = p.start.Add(200 * time.Millisecond)
	if f, ok := stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.w = f
	}
	return p
}

// due reports whether it is time to show something again, which is then shown.
func (p *progress) due() (now time.Time, due bool) {
	now = time.Now()
	if p.w == nil || now.Before(p.next) {
		return now, false
	}
	p.next, p.shown = now.Add(100*time.Millisecond), true
	return now, true
}

func (p *progress) show(done, total uint64) {
	now, due := p.due()
	if !due {
		return
	}
	const width = 30
	filled := int(width * done / total)
	rate := float64(done) / now.Sub(p.start).Seconds()
	left := time.Duration(float64(total-done) / rate * float64(time.Second))
	fmt.Fprintf(p.w, "\r[%s%s] %3d%%  %s of %s, %s/s, %v left \x1b[K", strings.Repeat("#", filled), strings.Repeat(" ", width-filled),
		100*done/total, mebibytes(done), mebibytes(total), mebibytes(uint64(rate)), left.Round(time.Second))
}

// count shows how many of some things are done.
func (p *progress) count(done, total int, what string) {
	if _, due := p.due(); due {
		fmt.Fprintf(p.w, "\r%d of %d %s \x1b[K", done, total, what)
	}
}

// say shows what is being done.
func (p *progress) say(text string) {
	if _, due := p.due(); due {
		fmt.Fprintf(p.w, "\r%s \x1b[K", text)
	}
}

func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}

func mebibytes(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
