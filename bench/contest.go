package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/outsight-vmi/outsight/lab"
)

// coldDump is the contestant that the others are compared with.
const coldDump = "outsight ps DUMP, kernel never seen"

func measureLive(ctx context.Context, o options, g *lab.Guest) ([]result, error) {
	binary, err := filepath.Abs(o.outsight)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", o.outsight, err)
	}
	target := "qemu:" + g.QMP()
	results := []result{
		ours("outsight version", binary, "version").measure(ctx, o.runs),
		ours("outsight ps LIVE, kernel never seen", binary, "ps", target, "--no-cache").measure(ctx, o.runs),
		ours("outsight ps LIVE, kernel known", binary, "ps", target).measure(ctx, o.runs),
	}
	views, err := measureViews(ctx, o, binary, target)
	return append(results, views...), err
}

// measureViews measures each view on its own, of which it returns the median and the
// slowest, and all of them together.
func measureViews(ctx context.Context, o options, binary, target string) ([]result, error) {
	dir, err := os.MkdirTemp("", "outsight-bench-views-")
	if err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	evidence := filepath.Join(dir, "evidence")
	all := ours("outsight collect LIVE: every view", binary, "collect", target, "-o", evidence)
	all.before, all.want = func() error { return os.RemoveAll(evidence) }, "views"
	together := all.measure(ctx, o.runs)
	if together.err != nil {
		return []result{together}, nil
	}
	views, err := collected(filepath.Join(evidence, "manifest.json"))
	if err != nil {
		return nil, err
	}
	var each []result
	for _, view := range views {
		one := ours("outsight "+view+" LIVE, kernel known", binary, view, target, "-o", "json")
		one.want = "" // a view may be empty
		r := one.measure(ctx, max(1, o.runs/3))
		if r.err != nil {
			return nil, fmt.Errorf("%s: %w", r.name, r.err)
		}
		each = append(each, r)
	}
	slices.SortFunc(each, func(a, b result) int { return cmp.Compare(a.median(), b.median()) })
	middle, slowest := each[len(each)/2], each[len(each)-1]
	middle.name += " (the median view)"
	slowest.name += " (the slowest view)"
	return []result{middle, slowest, together}, nil
}

// collected are the views that a manifest of "outsight collect" names.
func collected(manifest string) (views []string, err error) {
	b, err := os.ReadFile(manifest)
	if err != nil {
		return nil, fmt.Errorf("read what was collected: %w", err)
	}
	var m struct {
		Views []struct {
			View string `json:"view"`
		} `json:"views"`
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("read %s: %w", manifest, err)
	}
	for _, e := range m.Views {
		views = append(views, e.View)
	}
	if len(views) == 0 {
		return nil, fmt.Errorf("%s names no view", manifest)
	}
	return views, nil
}

func ours(name, binary string, args ...string) contestant {
	c := contestant{name: name, command: append([]string{binary}, args...), want: "sleep"}
	if args[0] == "version" {
		c.want = "outsight"
	}
	return c
}

func measureDumps(ctx context.Context, o options, tools toolbox, k lab.Kernel, d dumps) []result {
	binary, _ := filepath.Abs(o.outsight) // it worked a moment ago
	results := []result{
		ours(coldDump, binary, "ps", d.raw, "--no-cache").measure(ctx, o.runs),
		ours("outsight ps DUMP, kernel known", binary, "ps", d.raw).measure(ctx, o.runs),
	}
	if o.alone {
		return results
	}
	// The others take seconds: fewer runs are enough.
	runs := max(1, o.runs/3)
	for _, c := range tools.contestants(ctx, k, d) {
		if c.err != nil {
			results = append(results, result{name: c.name, err: c.err})
			continue
		}
		results = append(results, c.measure(ctx, runs))
	}
	return results
}

// toolbox is a root folder with drgn and crash in it.
type toolbox struct {
	root string
	err  error // why there is none
}

func findTools(ctx context.Context) toolbox {
	if os.Geteuid() != 0 {
		return toolbox{err: errors.New("needs root, to run in a chroot")}
	}
	root, err := output(ctx, "scripts/bench-tools")
	return toolbox{root, err}
}

// candidate is a contestant, or why it cannot take part.
type candidate struct {
	contestant
	err error
}

// drgnList lists pid and comm of every process.
const drgnList = `from drgn.helpers.linux.pid import for_each_task
for t in for_each_task(prog):
    print(t.pid.value_(), t.comm.string_().decode(errors="backslashreplace"))
`

func (t toolbox) contestants(ctx context.Context, k lab.Kernel, d dumps) []candidate {
	names := []string{"drgn, DUMP and debug symbols", "drgn, DUMP alone", "crash, DUMP and debug symbols"}
	fail := func(err error) []candidate {
		var all []candidate
		for _, name := range names {
			all = append(all, candidate{contestant{name: name}, err})
		}
		return all
	}
	if t.err != nil {
		return fail(t.err)
	}
	if d.coreErr != nil {
		return fail(d.coreErr)
	}
	script := filepath.Join(t.root, "bench", "list.py")
	if err := os.WriteFile(script, []byte(drgnList), 0o644); err != nil {
		return fail(fmt.Errorf("write drgn's script: %w", err))
	}
	core := "/bench/" + filepath.Base(d.core)
	drgn := func(args ...string) []string {
		return append([]string{"/usr/bin/drgn", "-q", "--no-default-symbols", "-c", core}, append(args, "/bench/list.py")...)
	}
	// drgn gets nothing but the memory: how far does it get?
	alone := candidate{contestant: contestant{name: names[1], command: drgn(), chroot: t.root, want: "sleep"}}
	vmlinux, err := output(ctx, "scripts/bench-tools", "debug", k.Release)
	if err != nil {
		all := fail(fmt.Errorf("no debug symbols of %s: %w", k.Release, err))
		return []candidate{all[0], alone, all[2]}
	}
	vmlinux = "/" + filepath.Clean(vmlinux[len(t.root)+1:])
	return []candidate{
		{contestant: contestant{name: names[0], command: drgn("-s", vmlinux), chroot: t.root, want: "sleep"}},
		alone,
		{contestant: contestant{
			name: names[2], command: []string{"/usr/bin/crash", "-s", vmlinux, core}, chroot: t.root,
			input: "ps\nquit\n", env: []string{"HOME=/root", "TERM=dumb"}, want: "sleep",
		}},
	}
}
