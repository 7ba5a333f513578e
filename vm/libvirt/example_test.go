package libvirt_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/libvirt"
)

// A host that knows nothing but domains of libvirt.
func ExampleDriver() {
	domains := libvirt.New()
	host := vm.Host{Drivers: []vm.Driver{domains}, Resolvers: map[string]vm.Resolver{"libvirt": domains.Resolve}}
	_, err := host.Open(context.Background(), "libvirt:no-such-domain", vm.Options{})
	fmt.Println(errors.Is(err, vm.ErrNotFound))
	// Output: true
}
