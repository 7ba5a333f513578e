package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/plant"
	"github.com/outsight-vmi/outsight/table/where"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/planted"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

// runPlanted is "outsight trace --plant".
func (f *traceFlags) runPlanted(c *cobra.Command, access *guestFlags, target string, o output, where *where.Filter, t tcg.Options) (err error) {
	if len(t.Probes)+len(t.Writes) > 0 || f.hold != "" || f.sessions.folder != "" {
		return usagef("--plant does not go with --probe, --write, --hold-exec and --sessions: those need the plugin")
	}
	options := plantedOptions(f.calls, false)
	options.PIDs, options.Limit, options.Fields, options.Tracepoints = t.PIDs, t.Limit, t.Fields, f.tracepoints
	g, err := access.session(c.Context(), target)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	s, err := startPlanted(c, g, options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return f.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), s, o, where)
}

// startPlanted plants probes and says so, or says that it reads those that are there.
func startPlanted(c *cobra.Command, g *guest.Guest, o planted.Options) (*planted.Tended, error) {
	s, err := planted.Plant(c.Context(), g, o, func(plan *plant.Plan) error {
		describe(c.ErrOrStderr(), g, plan)
		return c.Context().Err()
	})
	if err != nil {
		return nil, plantingFailed(g, err)
	}
	if !s.Planted() {
		warn(fmt.Sprintf("probes were planted in %s at %s: they are read, and stay; outsight probe remove removes them", g.Target(), s.Planting().When.Format("2006-01-02 15:04:05")))
	}
	return s, nil
}

// byPlanted has planted probes say what they see, and polls the rest.
func (f *watchFlags) byPlanted(ctx context.Context, c *cobra.Command, g *guest.Guest, kinds []trace.Kind) (trace.Stream, string, error) {
	wanted := forSensors(kinds)
	if wanted == nil {
		wanted = watchKinds
	}
	seen, rest := split(wanted, planted.Kinds)
	polled, err := f.polled(ctx, g, rest, false)
	if err != nil {
		return nil, "", err
	}
	s, err := startPlanted(c, g, planted.Options{Calls: []string{}, Kinds: seen})
	if err != nil {
		return nil, "", errors.Join(err, polled.Close())
	}
	return trace.Merge(s, polled), "by planted probes, each as it happens: " + kindNames(seen) + "; the rest " + f.byPolling(rest), nil
}

// split are the kinds that are in a list, and the others.
func split(kinds, list []trace.Kind) (in, others []trace.Kind) {
	for _, k := range kinds {
		if slices.Contains(list, k) {
			in = append(in, k)
		} else {
			others = append(others, k)
		}
	}
	return in, others
}
