package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// churn keeps a journal busy.
func churn(dir string) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := 0; ; round++ {
		at := filepath.Join(dir, fmt.Sprintf("round%d", round))
		check(os.Mkdir(at, 0o755))
		for i := range 200 {
			name := filepath.Join(at, fmt.Sprintf("%d-%d", i, random.Uint64()))
			switch i % 4 {
			case 0:
				check(os.Symlink(fmt.Sprint(round), name))
			default:
				f, err := os.Create(name)
				check(err)
				_, err = fmt.Fprintf(f, "round %d, file %d: %*d", round, i, random.IntN(3000), 0)
				check(err)
				if i%40 == 1 {
					check(f.Sync())
				}
				check(f.Close())
				check(unix.Setxattr(name, "user.round", fmt.Appendf(nil, "%*d", i*5, round), 0))
			}
			if i%3 == 0 {
				check(os.Rename(name, name+"-renamed"))
			}
			if i%5 == 0 {
				check(os.Link(name+map[bool]string{true: "-renamed"}[i%3 == 0], filepath.Join(at, fmt.Sprint("link", i))))
			}
		}
		if round >= 6 {
			check(os.RemoveAll(filepath.Join(dir, fmt.Sprintf("round%d", round-6))))
		}
	}
}
