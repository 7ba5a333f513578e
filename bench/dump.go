package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// dumps are the same memory in two forms.
type dumps struct {
	raw     string // for outsight
	core    string // ELF with VMCOREINFO, for drgn and crash
	coreErr error  // why the core is missing
}

func (d dumps) remove() {
	os.Remove(d.raw)
	os.Remove(d.core)
}

// takeDumps stops the guest and writes its memory down twice.
func takeDumps(ctx context.Context, g *lab.Guest, dir string) (dumps, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	c, err := qmp.Dial(ctx, g.QMP())
	if err != nil {
		return dumps{}, fmt.Errorf("talk to the guest's QEMU: %w", err)
	}
	defer c.Close()
	d := dumps{raw: filepath.Join(dir, "guest.raw"), core: filepath.Join(dir, "guest.core")}
	elf := filepath.Join(dir, "guest.elf")
	defer os.Remove(elf)
	for _, name := range []string{d.raw, elf} {
		os.Remove(name) // left by a run that was killed: QEMU does not truncate
	}
	steps := []struct {
		command string
		args    any
	}{
		{"stop", nil},
		{"pmemsave", map[string]any{"val": 0, "size": g.Memory, "filename": d.raw}},
		{"dump-guest-memory", map[string]any{"paging": false, "protocol": "file:" + elf}},
	}
	for _, s := range steps {
		if err := c.Execute(ctx, s.command, s.args, nil); err != nil {
			return dumps{}, fmt.Errorf("dump the guest: %w", err)
		}
	}
	d.coreErr = addVMCoreInfo(d.core, elf, d.raw)
	return d, nil
}

// output is the one line that a script prints.
func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		if line := lastLine(errOut.String()); line != "" {
			err = errors.New(line)
		}
		return "", err
	}
	return strings.TrimSpace(string(out)), nil
}
