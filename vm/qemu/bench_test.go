package qemu_test

import (
	"context"
	"testing"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/local"
)

func BenchmarkOpen(b *testing.B) {
	g := boot(b, "-m", "512M", "-object", "memory-backend-memfd,id=m,size=512M,share=on", "-machine", "q35,memory-backend=m")
	for name, opts := range map[string]vm.Options{"QMP": {}, "Guess": {NoQMP: true}, "Private": {NoMap: true}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				m, err := local.Host().Open(context.Background(), "pid:"+g.pid, opts)
				if err != nil {
					b.Fatal(err)
				}
				m.Close()
			}
		})
	}
}
