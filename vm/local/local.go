// Package local has a [vm.Host] with every driver there is: the machines of this
// host.
package local

import (
	"context"

	"github.com/outsight-vmi/outsight/lab/state"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/kvm"
	"github.com/outsight-vmi/outsight/vm/libvirt"
	"github.com/outsight-vmi/outsight/vm/microvm"
	"github.com/outsight-vmi/outsight/vm/qemu"
)

// Host returns a host with every driver, which knows the guests of outsight lab too.
// Callers may add resolvers to it.
func Host() *vm.Host {
	domains := libvirt.New()
	return &vm.Host{
		Drivers:   []vm.Driver{domains, qemu.Driver{}, microvm.Driver{}, kvm.Driver{}},
		Resolvers: map[string]vm.Resolver{"lab": state.Target, "libvirt": domains.Resolve},
	}
}

// Open is [vm.Host.Open] of [Host] with default options.
func Open(ctx context.Context, target string) (*vm.Machine, error) {
	return Host().Open(ctx, target, vm.Options{})
}

// List is [vm.Host.List] of [Host].
func List(ctx context.Context) ([]vm.Info, error) { return Host().List(ctx) }
