package microvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/vm"
)

// patience is how long a monitor may take to describe its machine, which is then read
// without its help.
const patience = time.Second

// api is the HTTP API of one monitor.
type api struct {
	vmm  string
	path string
	pid  int
}

// answers is what a monitor says about its machine.
type answers struct {
	state   vm.State
	version string
	name    string
	ram     uint64
	cpus    int
}

func (a *api) get(ctx context.Context, resource string, v any) error {
	b, err := call(ctx, a.path, a.pid, "GET", resource, "")
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("answer of GET %s: %w", resource, err)
	}
	return nil
}

// ask asks for all that is of use.
func (a *api) ask(ctx context.Context) (t answers, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if a.vmm == cloudHypervisor {
		return a.askCloudHypervisor(ctx)
	}
	var i struct {
		ID      string `json:"id"`
		State   string `json:"state"`
		Version string `json:"vmm_version"`
	}
	if err := a.get(ctx, "/", &i); err != nil {
		return t, err
	}
	t.name, t.version, t.state = i.ID, i.Version, stateOf(i.State)
	var c machineConfig
	if a.get(ctx, "/machine-config", &c) == nil {
		t.ram, t.cpus = c.ram(), max(c.CPUs, 0)
	}
	return t, nil
}

func (a *api) askCloudHypervisor(ctx context.Context) (t answers, err error) {
	var ping struct {
		Version string `json:"version"`
	}
	if err := a.get(ctx, "/api/v1/vmm.ping", &ping); err != nil {
		return t, err
	}
	t.version = ping.Version
	var i struct {
		State  string `json:"state"`
		Config struct {
			CPUs struct {
				Boot int `json:"boot_vcpus"`
			} `json:"cpus"`
			Memory struct {
				Size  uint64 `json:"size"`
				Zones []struct {
					Size uint64 `json:"size"`
				} `json:"zones"`
			} `json:"memory"`
		} `json:"config"`
	}
	if err := a.get(ctx, "/api/v1/vm.info", &i); err != nil {
		// It says so with a status of failure when no machine was made yet.
		if no := (*statusError)(nil); errors.As(err, &no) {
			t.state = vm.StatePrelaunch
			return t, nil
		}
		return t, err
	}
	t.state, t.cpus, t.ram = stateOf(i.State), max(i.Config.CPUs.Boot, 0), i.Config.Memory.Size
	for _, z := range i.Config.Memory.Zones {
		t.ram += z.Size
	}
	return t, nil
}

// stateOf is a monitor's word for a state in QEMU's words.
func stateOf(s string) vm.State {
	switch s {
	case "Running":
		return vm.StateRunning
	case "Paused", "BreakPoint":
		return vm.StatePaused
	case "Not started", "Created":
		return vm.StatePrelaunch
	case "Shutdown":
		return vm.StateShutdown
	}
	return vm.StateUnknown
}

// setPaused pauses the machine or lets it go on.
func (a *api) setPaused(ctx context.Context, paused bool) error {
	method, resource, body := "PATCH", "/vm", `{"state":"Resumed"}`
	if paused {
		body = `{"state":"Paused"}`
	}
	if a.vmm == cloudHypervisor {
		method, resource, body = "PUT", "/api/v1/vm.resume", ""
		if paused {
			resource = "/api/v1/vm.pause"
		}
	}
	_, err := call(ctx, a.path, a.pid, method, resource, body)
	return err
}
