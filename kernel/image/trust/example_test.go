package trust_test

import (
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/kernel/image/trust"
)

func ExampleVerify() {
	_, err := trust.Verify([]byte("MZ, but not much more"), trust.Authorities())
	fmt.Println(errors.Is(err, trust.ErrUnsigned), err)
	// Output:
	// true not signed: it is not a UEFI program
}

func ExampleAuthorities() {
	for _, a := range trust.Authorities() {
		if a.Name == "Debian" {
			fmt.Println(a.Certificate.Subject, a.Certificate.NotAfter.Year())
		}
	}
	// Output:
	// CN=Debian Secure Boot CA 2046
}
