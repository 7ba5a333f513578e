package check

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/plant"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "planted-probe",
		Title:     "Probes planted from outside that are not as they were planted, or that this host did not plant",
		Severity:  High,
		Technique: "T1562.006", // Impair Defenses: Indicator Blocking
		Source: `the mailbox behind the kernel's variables, code and programs behind the entry code, against what "outsight probe plant" writes, byte for byte, and what this host noted of it;
descriptors of the kernel's threads, the kernel's lists of BPF maps, programs and links, the programs' machine code, and the functions that tracepoints call`,
		Proves: `Probes of outsight's were changed, closed or detached in the guest, which only its root, or who has its kernel, can do; or somebody who is not this user of this host
planted something that looks like outsight's.`,
		Blind: `Events that the guest's root makes up by running what the probes wait for. On another host than the one that planted, what the kernel's compiler made of the programs
cannot be compared. What looks like planted code without a mailbox is found by kernel-text.`,
		Next: `"outsight probe list TARGET" shows what is there. What is left of one's own is removed by "outsight probe remove TARGET". If nobody of your own planted it, dump the guest.`,
		Example: `The guest's root closed a link:

    $ outsight check lab:demo --only planted-probe
    SEVERITY  CONFIDENCE  CHECK          TITLE
    high      certain     planted-probe  the probes that were planted at 2026-11-30 07:20:11 UTC are not as they were: program outsight_exec is not run any more: tracepoint sched_process_exec does not call it`,
		Run: plantedProbes,
	})
}

func plantedProbes(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		p, err := plant.At(ctx, s.Look)
		if errors.Is(err, plant.ErrNothing) {
			return
		}
		if err != nil {
			yield(nil, fmt.Errorf("planted probes: %w", err))
			return
		}
		if !p.Settled() {
			yield(nil, fmt.Errorf("planted probes: a job is %s", p.State))
			return
		}
		when := p.When.UTC().Format(time.DateTime) + " UTC"
		object := Object{Kind: "planted probes", Name: p.ID, Addr: p.Mailbox}
		if !p.Noted() && !yield(&Finding{
			Severity: Medium, Confidence: Certain, Object: object,
			Title:    "probes were planted at " + when + ", by the clock of who did, and not by this user of this host",
			Expected: "a note of " + p.ID + " on this host", Seen: fmt.Sprintf("%d BPF objects", len(p.Objects)),
			Show: "outsight probe list {}",
		}, nil) {
			return
		}
		for i, problem := range p.Problems {
			object.Name = fmt.Sprintf("%s: %s", p.ID, problem)
			if i >= maxFindings || !yield(&Finding{
				Confidence: Certain, Object: object,
				Title: "the probes that were planted at " + when + " are not as they were: " + problem,
				Show:  "outsight probe list {}",
			}, nil) {
				return
			}
		}
	}
}

// isPlanted says of memory whether it is what this host planted, as it planted it. That is found out once, when it is first asked.
func (s *Subject) isPlanted(ctx context.Context) func(a virt.Addr, n int) bool {
	find := sync.OnceValues(func() (*plant.Planting, error) { return plant.At(ctx, s.Look) })
	return func(a virt.Addr, n int) bool {
		p, err := find()
		return err == nil && p.Holds(a) && p.Holds(a+virt.Addr(max(n, 1)-1))
	}
}
