package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/guardian"
	"github.com/outsight-vmi/outsight/vm/local"
)

// guarded is the kind of the guardians that take down what a killed process has left.
const guarded = "disk"

type recipe struct {
	Target string
	PID    int // of who made it, which is gone
}

func init() {
	guardian.Register(guarded, func(ctx context.Context, data json.RawMessage) error {
		var r recipe
		if err := json.Unmarshal(data, &r); err != nil {
			return err
		}
		return guardian.Retry(ctx, func(ctx context.Context) error {
			m, err := local.Open(ctx, r.Target)
			if errors.Is(err, vm.ErrGone) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("%w: %w", guardian.ErrAgain, err)
			}
			defer m.Close()
			if m.Control.Monitor == nil {
				return fmt.Errorf("%w: %w", guardian.ErrAgain, ErrNoMonitor)
			}
			if err := clean(ctx, m.Control.Monitor, func(pid int) bool { return pid == r.PID }); err != nil {
				return fmt.Errorf("%w: %w", guardian.ErrAgain, err)
			}
			return nil
		})
	})
}

// Clean takes down what processes have left in a monitor that do not exist any more.
func Clean(ctx context.Context, m vm.Monitor) error {
	return clean(ctx, m, func(pid int) bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
		return errors.Is(err, os.ErrNotExist)
	})
}

// clean takes down what the processes have left for which gone is true. It does as Snapshot.Close, by what the monitor says is there.
func clean(ctx context.Context, m vm.Monitor, gone func(pid int) bool) error {
	left := func(name string) bool {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			return false
		}
		digits, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(digits)
		return err == nil && gone(pid)
	}
	var nodes []struct {
		Name string `json:"node-name"`
	}
	if err := m.QMP(ctx, "query-named-block-nodes", map[string]any{"flat": true}, &nodes); err != nil {
		return fmt.Errorf("look for what was left: %w", err)
	}
	var names []string
	for _, n := range nodes {
		if left(n.Name) {
			names = append(names, n.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	if err := unserve(ctx, m, left); err != nil {
		return err
	}
	// In front of what they stand on: then, before, kept.
	for _, suffix := range []string{"-then", "-before", "-kept"} {
		for _, name := range names {
			if !strings.HasSuffix(name, suffix) {
				continue
			}
			if suffix == "-before" {
				if err := takeOut(ctx, m, name); err != nil {
					return err
				}
			}
			if err := m.QMP(ctx, "blockdev-del", map[string]any{"node-name": name}, nil); err != nil {
				return fmt.Errorf("take down what was left of %s: %w", name, err)
			}
		}
	}
	return nil
}

// unserve ends exports that were left, and the server if nobody else has any: whose nodes were left has started it, or was about to.
func unserve(ctx context.Context, m vm.Monitor, left func(string) bool) error {
	var exports []struct {
		ID, Type string
	}
	if err := m.QMP(ctx, "query-block-exports", nil, &exports); err != nil {
		return fmt.Errorf("look for what was left: %w", err)
	}
	others := 0
	for _, e := range exports {
		switch {
		case left(e.ID):
			if err := m.QMP(ctx, "block-export-del", map[string]any{"id": e.ID, "mode": "hard"}, nil); err != nil {
				return fmt.Errorf("end what was left of export %s: %w", e.ID, err)
			}
		case e.Type == "nbd":
			others++
		}
	}
	if others == 0 {
		_ = m.QMP(ctx, "nbd-server-stop", nil, nil) // it may not have been started yet
	}
	return nil
}

// takeOut gives a drive back the node that stands behind a filter.
func takeOut(ctx context.Context, m vm.Monitor, filter string) error {
	var blocks []struct {
		Qdev     string `json:"qdev"`
		Inserted *struct {
			NodeName string `json:"node-name"`
		} `json:"inserted"`
	}
	if err := m.QMP(ctx, "query-block", nil, &blocks); err != nil {
		return err
	}
	for _, b := range blocks {
		if b.Inserted == nil || b.Inserted.NodeName != filter {
			continue
		}
		behind, err := childOf(ctx, m, filter)
		if err != nil {
			return err
		}
		if err := m.QMP(ctx, "qom-set", property(devicePath(b.Qdev), behind), nil); err != nil {
			return fmt.Errorf("give %s its disk back: %w", b.Qdev, err)
		}
	}
	return nil
}

// childOf is the node that a filter filters, by the graph of blocks.
func childOf(ctx context.Context, m vm.Monitor, filter string) (string, error) {
	var graph struct {
		Nodes []struct {
			ID   int64  `json:"id"`
			Name string `json:"name"`
		} `json:"nodes"`
		Edges []struct {
			Parent int64  `json:"parent"`
			Child  int64  `json:"child"`
			Name   string `json:"name"`
		} `json:"edges"`
	}
	if err := m.QMP(ctx, "x-debug-query-block-graph", nil, &graph); err != nil {
		return "", fmt.Errorf("find what is behind %s: %w", filter, err)
	}
	name := func(id int64) string {
		i := slices.IndexFunc(graph.Nodes, func(n struct {
			ID   int64  `json:"id"`
			Name string `json:"name"`
		},
		) bool {
			return n.ID == id
		})
		if i < 0 {
			return ""
		}
		return graph.Nodes[i].Name
	}
	for _, e := range graph.Edges {
		if e.Name == "file" && name(e.Parent) == filter && name(e.Child) != "" {
			return name(e.Child), nil
		}
	}
	return "", fmt.Errorf("nothing is behind %s", filter)
}
