package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/vm"
)

const recoverLong = `Write out the bytes of a file that the guest has in memory.

The bytes come from the guest's page cache, not from its disk: a file that nobody used
for long may not be there, or only a part of it. What is missing is written as zeros (a
hole, where the output is a file), reported on standard error as ranges of bytes, and ends
in exit status 3. Files of tmpfs, memfd and other shared memory are whole but for pages in
swap. PATH is as the first process sees it, or with --pid that process, through the
symbolic links that are in memory; a file that was unlinked is found by the path it had. --map prints what there is, and no bytes.`

type recoverFlags struct {
	guest  guestFlags
	file   fileFlags
	pid    int32
	ranges bool
}

// errIncomplete ends what lacked something, which has been reported by then.
type errIncomplete struct{}

func (errIncomplete) Error() string   { return "not everything could be read" }
func (errIncomplete) ExitStatus() int { return exitTarget }

func newRecoverCommand() *cobra.Command {
	var f recoverFlags
	c := &cobra.Command{
		Use:   "recover [TARGET] PATH",
		Short: "Write out a file that the guest has in memory",
		Long:  recoverLong,
		Example: `  outsight recover lab:demo /etc/passwd
  outsight recover memory.raw /tmp/dropper -o dropper.bin`,
		Args:    arguments(1, 2, "a PATH, or a TARGET and a PATH"),
		GroupID: string(table.Files),
	}
	f.guest.add(c)
	f.file.add(c, "write to this `file`; - is standard output", stdoutPath)
	c.Flags().Int32Var(&f.pid, "pid", 1, "find PATH as this process sees it")
	c.Flags().BoolVar(&f.ranges, "map", false, "print the ranges that are in memory, and those that are not")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		path := args[len(args)-1]
		if !strings.HasPrefix(path, "/") {
			return usagef("%q is not an absolute path", path)
		}
		if err := f.file.check(c, ""); err != nil {
			return err
		}
		target := ""
		if len(args) == 2 {
			target = args[0]
		}
		g, done, err := f.guest.open(c.Context(), target)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done()) }()
		i, err := findFile(c.Context(), g.Linux, path, f.pid)
		if err != nil {
			return err
		}
		return f.write(c, g.Linux, i)
	}
	return c
}

// findFile is the file that process pid sees at path.
func findFile(ctx context.Context, s *linux.System, path string, pid int32) (*linux.INode, error) {
	notThere := func(why, do string) error {
		return &vm.Error{Kind: vm.ErrNotFound, What: "recover " + path, Why: why, Do: do}
	}
	for t, err := range s.Processes(ctx) {
		if err != nil {
			continue // it may be another; if it is this one, that is reported below
		}
		if p, _, err := t.IDs(); err != nil || p != pid {
			continue
		}
		i, err := s.FindFile(ctx, t, path)
		if errors.Is(err, fs.ErrNotExist) {
			why := strings.TrimSuffix(err.Error(), ": "+fs.ErrNotExist.Error())
			return nil, notThere(why, `see "outsight pagecache" for those that it has`)
		}
		return i, err
	}
	return nil, notThere(fmt.Sprintf("no process with pid %d", pid), "choose another with --pid")
}

func (f *recoverFlags) write(c *cobra.Command, s *linux.System, i *linux.INode) (err error) {
	broken := func(err error) { fmt.Fprintln(c.ErrOrStderr(), "outsight: "+sentence(err.Error())) }
	if f.ranges {
		return f.tellRanges(c, s, i, broken)
	}
	var missing []linux.FilePart
	if f.file.path == stdoutPath {
		var ram uint64
		for _, r := range s.Memory.Ranges() {
			ram += r.Size()
		}
		if i.Size > 4*ram {
			return usagef("the file has %d bytes, most of which cannot be in memory; write it to a sparse file with -o", i.Size)
		}
		missing, err = s.Recover(c.Context(), i, c.OutOrStdout(), broken)
	} else {
		file, e := os.OpenFile(f.file.path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if e != nil {
			return usagef("%w", e)
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		missing, err = s.RecoverSparse(c.Context(), i, file, broken)
	}
	if err != nil {
		return err
	}
	for _, p := range missing {
		fmt.Fprintf(c.ErrOrStderr(), "outsight: missing: %d-%d %s\n", p.Start, p.End, p.Missing)
	}
	return f.conclude(c, missing, i.Size)
}

// tellRanges prints what is in memory, and then what is not.
func (f *recoverFlags) tellRanges(c *cobra.Command, s *linux.System, i *linux.INode, broken func(error)) error {
	var missing []linux.FilePart
	for p, err := range s.FileParts(c.Context(), i) {
		switch {
		case err != nil:
			broken(err)
		case p.In:
			fmt.Fprintf(c.OutOrStdout(), "%d-%d in memory at %#x\n", p.Start, p.End, uint64(p.PA))
		case p.Missing != "":
			missing = append(missing, p)
		}
	}
	if err := c.Context().Err(); err != nil {
		return err
	}
	for _, p := range missing {
		fmt.Fprintf(c.OutOrStdout(), "%d-%d %s\n", p.Start, p.End, p.Missing)
	}
	return f.conclude(c, missing, i.Size)
}

func (f *recoverFlags) conclude(c *cobra.Command, missing []linux.FilePart, size uint64) error {
	lacking := uint64(0)
	for _, p := range missing {
		lacking += p.End - p.Start
	}
	if lacking == 0 {
		return nil
	}
	fmt.Fprintf(c.ErrOrStderr(), "outsight: %d of %d bytes are missing\n", lacking, size)
	return errIncomplete{}
}
