package lab

import "testing"

// A module's parameters go to a shell in the guest: nothing that it would read otherwise
// gets through.
func TestModulePattern(t *testing.T) {
	for module, want := range map[string]bool{
		"dummy":                             true,
		"vsock_loopback":                    true,
		"algif-hash":                        true,
		"dummy numdummies=2":                true,
		"loop  max_loop=8 max_part=4":       true,
		"kvm_amd nested=1 npt=":             true,
		"binder devices=a,b,c":              true,
		"netconsole netconsole=@/eth0,1@/":  false, // not worth it
		"":                                  false,
		" dummy":                            false,
		"dummy ":                            false,
		"dummy numdummies":                  false,
		"dummy numdummies=2;reboot":         false,
		"dummy numdummies=$(reboot)":        false,
		"dummy a=`reboot`":                  false,
		"dummy a='b c'":                     false,
		"dummy a=*":                         false,
		"dummy a=1\nreboot":                 false,
		"dummy a=1\n":                       false,
		"../../etc/passwd":                  false,
		"dummy\tnumdummies=2":               false,
		"dummy dyndbg=\"module dummy +p\"":  false,
		"usbcore quirks=0781:5580:bk,a:b:c": true,
	} {
		if got := moduleRE().MatchString(module); got != want {
			t.Errorf("%q: taken for a module: %v, want %v", module, got, want)
		}
		o := Options{Modules: []string{module}}
		if err := o.complete(); (err == nil) != want {
			t.Errorf("%q: %v", module, err)
		}
	}
}

func TestModuleName(t *testing.T) {
	if got := moduleName("algif-hash-x"); got != "algif_hash_x" {
		t.Error(got)
	}
}
