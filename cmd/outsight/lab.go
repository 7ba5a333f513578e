package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/plugin"
)

// newLabCommand is "outsight lab": guests to try things on.
func newLabCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Boot Linux guests to try things on",
		Long: "Boot Linux guests to try things on: Debian's kernels, fetched with apt and kept in a cache,\n" +
			"with a busybox or a Debian userland. No root is needed; QEMU is. A guest of the lab is\n" +
			"a TARGET for every other command: lab:NAME.",
		Example: "  outsight lab up --kernel 6.12 --name web\n  outsight ps lab:web\n  outsight lab exec web -- ps aux\n  outsight lab down web",
	}
	cmd.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownVerb(c, args[0])
		}
		return c.Help()
	}
	cmd.AddCommand(newLabUpCommand(), newLabExecCommand(), newLabListCommand(), newLabDownCommand(), newLabKernelsCommand())
	return cmd
}

func newLabUpCommand() *cobra.Command {
	var o lab.Options
	var memory string
	var files []string
	var traced bool
	cmd := &cobra.Command{
		Use:   "up [flags]",
		Short: "Boot a guest and print its name",
		Long: "Boot a guest, wait until it answers, and print its name. It runs until `lab down`.\n" +
			"The first guest of a kernel downloads it; after that no network is needed.",
		Example: "  outsight lab up\n  outsight lab up --kernel 5.10 --memory 1G --smp 4 --name old\n" +
			"  outsight lab up --kernel 7.2 --userland debian --memory 2G\n" +
			"  outsight lab up --kernel ./vmlinuz --append nokaslr --file /bin/tool=./tool",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.SMP < 1 {
				return usagef("--smp %d: at least 1", o.SMP)
			}
			if o.Memory, err = parseSize(memory); err != nil {
				return usagef("--memory: %w", err)
			}
			if o.Files, err = parseFiles(files); err != nil {
				return usagef("--file: %w", err)
			}
			if traced {
				if o.Accel == lab.KVM {
					return usagef("--trace needs --accel tcg: QEMU's plugins see only what it translates")
				}
				if o.Plugin, err = plugin.Install(""); err != nil {
					return err
				}
			}
			o.Progress = cmd.ErrOrStderr()
			g, err := lab.Up(cmd.Context(), o)
			if errors.Is(err, lab.ErrOptions) {
				return &usageError{err}
			}
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), g.Name)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Name, "name", "", "`NAME` of the guest (default: made from the kernel)")
	f.StringVar(&o.Kernel, "kernel", lab.DefaultKernel, "kernel: a series ("+strings.Join(lab.KernelNames(), ", ")+") or the path of a vmlinuz")
	f.StringVar(&o.Initrd, "initrd", "", "`FILE` to boot as the initramfs instead of the lab's own")
	f.StringVar(&o.Userland, "userland", lab.Busybox, "userland: busybox, or debian (with systemd, on a disk, and with the modules of its kernel for modprobe)")
	f.StringSliceVar(&o.Packages, "packages", nil, "Debian `PACKAGES` that a debian userland gets besides, with commas between them")
	f.StringVar(&memory, "memory", "", "`SIZE` of its RAM, such as 512M or 2G (default 512M)")
	f.IntVar(&o.SMP, "smp", 1, "`NUMBER` of virtual CPUs")
	f.StringVar(&o.Accel, "accel", lab.TCG, "accelerator: tcg or kvm")
	f.StringVar(&o.CPU, "cpu", "", "QEMU's processor `MODEL` (default max, which has LA57; max,la57=off has not)")
	f.StringVar(&o.Machine, "machine", "q35", "QEMU's machine `TYPE`")
	f.BoolVar(&o.Private, "private", false, "give it ordinary private RAM instead of a shared memfd")
	f.StringVar(&o.Append, "append", "", "more kernel `ARGUMENTS`")
	f.StringArrayVar(&files, "file", nil, "`GUEST=HOST`: put a file of the host into the guest (may be repeated)")
	f.StringSliceVar(&o.Modules, "modules", nil, "kernel `MODULES` to load, with commas between them and parameters after a name: 'veth,dummy numdummies=2'")
	f.BoolVar(&traced, "trace", false, "start QEMU with outsight's plugin, so that outsight trace can see every system call")
	f.BoolVar(&o.Firmware, "firmware", false, "boot no kernel: leave it in its firmware")
	f.BoolVar(&o.KVMHost, "kvm-host", false, "make it a KVM host itself (AMD SVM, emulated), with QEMU inside")
	f.StringArrayVar(&o.QEMUArgs, "qemu-arg", nil, "one more `ARGUMENT` for QEMU (may be repeated)")
	return cmd
}

func newLabExecCommand() *cobra.Command {
	var timeout time.Duration
	var stdin bool
	cmd := &cobra.Command{
		Use:   "exec NAME [flags] -- COMMAND [ARGUMENT...]",
		Short: "Run a command inside a guest",
		Long: "Run a command inside a guest, as root, over a serial port, and exit as it exits.\n" +
			"One argument is given to the guest's shell as it is; several are quoted.",
		Example: "  outsight lab exec web -- ps aux\n  outsight lab exec web -- 'cat /proc/[0-9]*/comm | sort'\n" +
			"  outsight lab exec web --stdin -- sh -c 'cat >/tmp/file' <file",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return errors.New("name a guest and a command: outsight lab exec NAME -- COMMAND")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			g, err := lab.Open(args[0])
			if err != nil {
				return err
			}
			c := lab.Command{Shell: args[1], Stdout: cmd.OutOrStdout(), Stderr: cmd.ErrOrStderr()}
			if len(args) > 2 {
				c.Shell = shellQuote(args[1:])
			}
			if stdin {
				var in bytes.Buffer
				if _, err := io.Copy(&in, cmd.InOrStdin()); err != nil {
					return fmt.Errorf("lab: read standard input: %w", err)
				}
				c.Stdin = in.Bytes()
			}
			ctx := cmd.Context()
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, timeout)
				defer cancel()
			}
			status, err := g.Exec(ctx, c)
			if err != nil {
				return err
			}
			if status != 0 {
				return exitStatus(status)
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up and kill the command after this `TIME` (0: never)")
	cmd.Flags().BoolVar(&stdin, "stdin", false, "give it standard input, read to its end first")
	return cmd
}

// exitStatus is the exit status of a command in a guest, handed on without a message.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// ExitStatus is what the process should exit with.
func (e exitStatus) ExitStatus() int { return int(e) }

func newLabListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Short:   "List the running guests",
		Example: "  outsight lab ls",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := lab.List()
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tKERNEL\tUSERLAND\tMEMORY\tCPUS\tACCEL\tRAM\tPID\tUP\tQMP")
			for _, g := range all {
				ram, kernel := "shared", g.Kernel.Release
				if g.Private {
					ram = "private"
				}
				if kernel == "" {
					kernel = g.Kernel.Name
				}
				if g.Firmware {
					kernel = "(firmware)"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%dM\t%d\t%s\t%s\t%d\t%s\t%s\n", g.Name, kernel, g.Userland, g.Memory>>20,
					g.SMP, g.Accel, ram, g.PID(), time.Since(g.Started).Round(time.Second), g.QMP())
			}
			return w.Flush()
		},
	}
}

func newLabDownCommand() *cobra.Command {
	var every bool
	cmd := &cobra.Command{
		Use:     "down NAME... | --all",
		Short:   "End guests at once",
		Example: "  outsight lab down web\n  outsight lab down --all",
		Args: func(_ *cobra.Command, args []string) error {
			if every != (len(args) == 0) {
				return errors.New("name the guests to end, or give --all")
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var errs []error
		if every {
			running, err := lab.List()
			if err != nil {
				return err
			}
			ended, err := lab.Ended()
			if err != nil {
				return err
			}
			for _, g := range append(running, ended...) {
				errs = append(errs, g.Down())
			}
		}
		for _, name := range args {
			g, err := lab.Open(name)
			if g != nil { // one that has ended is an error, and can be removed
				err = g.Down()
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
	cmd.Flags().BoolVar(&every, "all", false, "end every guest of the lab")
	return cmd
}

func newLabKernelsCommand() *cobra.Command {
	var update bool
	cmd := &cobra.Command{
		Use:   "kernels [SERIES...]",
		Short: "List the kernels in the cache, or fetch some",
		Long: "List the kernels in the cache. With names, fetch those that are not there yet; with\n" +
			"--update, look for newer ones (of every promised series, if none is named).",
		Example: "  outsight lab kernels\n  outsight lab kernels 5.10 6.1 6.12 7.2\n  outsight lab kernels --update",
		RunE: func(cmd *cobra.Command, names []string) error {
			if update && len(names) == 0 {
				names = lab.KernelNames()
			}
			fetch := lab.FindKernel
			if update {
				fetch = lab.UpdateKernel
			}
			for _, name := range names {
				if _, err := fetch(cmd.Context(), name, cmd.ErrOrStderr()); err != nil {
					return err
				}
			}
			all, err := lab.CachedKernels()
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "SERIES\tRELEASE\tVERSION\tSUITE\tVMLINUZ")
			for _, k := range all {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", k.Name, k.Release, k.Version, k.Suite, k.Vmlinuz)
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&update, "update", false, "look for newer kernels")
	return cmd
}

// parseSize reads 512M, 2G, or a number of bytes; "" is 0.
func parseSize(s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	number, shift := s, 0
	if i := strings.IndexByte("KMGT", s[len(s)-1]&^0x20); i >= 0 {
		number, shift = s[:len(s)-1], 10*(i+1)
	}
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || n > math.MaxUint64>>shift {
		return 0, fmt.Errorf("invalid size %q: write 512M or 2G", s)
	}
	return n << shift, nil
}

// parseFiles reads GUEST=HOST pairs.
func parseFiles(pairs []string) (map[string]string, error) {
	files := map[string]string{}
	for _, pair := range pairs {
		guest, host, ok := strings.Cut(pair, "=")
		if !ok || !strings.HasPrefix(guest, "/") {
			return nil, fmt.Errorf("invalid pair of files %q: write /path/in/guest=path/on/host", pair)
		}
		if _, err := os.Stat(host); err != nil {
			return nil, err
		}
		files[guest] = host
	}
	return files, nil
}

// shellQuote makes one shell command of a list of arguments.
func shellQuote(args []string) string {
	quoted := make([]string, len(args))
	for i, arg := range args {
		quoted[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}
