// Hypermatch on the rules and events of a directory: see `run` beside it. CPU time of one thread; garbage is collected while
// rules are added, as it would be, and not while events are matched, when there is none.
//
// Events are measured twice: as properties that are there already, of which it is given those that rules name and no
// others, and as JSON. Hypermatch takes upper and lower case for the same; no two keys or values of the workload differ in
// case alone, and the counts are checked.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/SchwarzDigits/hypermatch/v2"
)

const (
	passes    = 11
	eventsMin = 8
	pass      = 100 * time.Millisecond
	warm      = time.Second
	checkMax  = 5 * time.Second
	buildMax  = 60 * time.Second
)

// A rule: an event that fits one of its condition sets fits it.
type rule struct {
	id   uint32
	sets []hypermatch.ConditionSet
}

func main() {
	runtime.LockOSThread()
	dir := os.Args[1]

	before := heap()
	names := map[string]bool{}
	var rules []rule
	for lines := open(filepath.Join(dir, "patterns.jsonl")); lines.Scan(); {
		rules = append(rules, ruleOf(lines.Bytes(), names))
	}
	count := float64(len(rules))
	runtime.GC()
	h := hypermatch.New[uint32]()
	begun := cpuTime()
	for i, r := range rules {
		for _, set := range r.sets {
			if err := h.AddRule(r.id, set); err != nil {
				fail(1, "%v", err)
			}
		}
		if i%1000 == 0 && cpuTime()-begun > buildMax {
			fail(3, "%d rules took %v to add", i, buildMax)
		}
	}
	build := float64((cpuTime() - begun).Nanoseconds()) / 1e3 / count
	// What it keeps of their texts is its own then.
	rules = nil
	bytesOfRule := float64(max(0, heap()-before)) / count

	all, err := os.ReadFile(filepath.Join(dir, "events.jsonl"))
	if err != nil {
		fail(1, "%v", err)
	}
	texts := bytes.Split(bytes.TrimSpace(all), []byte("\n"))
	var events [][]hypermatch.Property
	for _, text := range texts {
		events = append(events, propertiesOf(text, names))
	}
	events = packed(events)
	runtime.GC()
	debug.SetGCPercent(-1)

	var out []uint32
	parsed := func(i int) []uint32 {
		out = h.AppendMatches(out[:0], events[i])
		return out
	}
	fromJSON := func(i int) []uint32 {
		var err error
		if out, err = h.AppendMatchesJSON(out[:0], texts[i]); err != nil {
			fail(1, "%v", err)
		}
		return out
	}
	i, checking := 0, time.Now()
	for counts := open(filepath.Join(dir, "counts.txt")); counts.Scan(); i++ {
		for _, match := range []func(int) []uint32{parsed, fromJSON} {
			if found := strconv.Itoa(len(match(i))); found != counts.Text() {
				fail(1, "%s rules instead of %s for %s", found, counts.Text(), texts[i])
			}
		}
		if i > eventsMin && time.Since(checking) > checkMax {
			break
		}
	}

	fmt.Printf("{\"name\":\"hypermatch\",\"ns\":%v,\"build_us\":%v,\"bytes\":%v}\n", measure(parsed, len(events)), build, bytesOfRule)
	fmt.Printf("{\"name\":\"hypermatch from JSON\",\"ns\":%v}\n", measure(fromJSON, len(events)))
}

// measure returns the nanoseconds for an event: the median of the passes.
func measure(match func(int) []uint32, events int) float64 {
	run := func(count int) time.Duration {
		begun := cpuTime()
		found := 0
		for i := range count {
			found += len(match(i))
		}
		runtime.KeepAlive(found)
		return cpuTime() - begun
	}
	count := min(eventsMin, events)
	for begun := time.Now(); time.Since(begun) < warm; {
		fits := float64(count) * float64(pass) / math.Max(1, float64(run(count)))
		count = min(events, max(eventsMin, int(fits)))
	}
	times := make([]float64, passes)
	for i := range times {
		times[i] = float64(run(count)) / float64(count)
	}
	slices.Sort(times)
	return times[passes/2]
}

// ruleOf reads a line of patterns.jsonl and adds the paths that it names.
func ruleOf(line []byte, names map[string]bool) rule {
	var read struct {
		ID       uint32
		Patterns []map[string]json.RawMessage
	}
	if err := json.Unmarshal(line, &read); err != nil {
		fail(1, "%v in %s", err, line)
	}
	r := rule{id: read.ID}
	for _, pattern := range read.Patterns {
		var set hypermatch.ConditionSet
		conditions(&set, "", pattern)
		for _, c := range set {
			names[strings.Clone(c.Path)] = true
		}
		r.sets = append(r.sets, set)
	}
	return r
}

// conditions appends those of a pattern: a list has what a field may be, an object has fields below it.
func conditions(set *hypermatch.ConditionSet, above string, pattern map[string]json.RawMessage) {
	for name, raw := range pattern {
		var below map[string]json.RawMessage
		if json.Unmarshal(raw, &below) == nil {
			conditions(set, above+name+".", below)
			continue
		}
		var any []json.RawMessage
		if err := json.Unmarshal(raw, &any); err != nil {
			fail(1, "%v in %s", err, raw)
		}
		*set = append(*set, hypermatch.Condition{Path: above + name, Pattern: oneOf(hypermatch.PatternAnyOf, any)})
	}
}

// oneOf makes one pattern of several; anyOf with one is that one.
func oneOf(kind hypermatch.PatternType, raw []json.RawMessage) hypermatch.Pattern {
	p := hypermatch.Pattern{Type: kind}
	for _, r := range raw {
		p.Sub = append(p.Sub, patternOf(r))
	}
	if kind == hypermatch.PatternAnyOf && len(p.Sub) == 1 {
		return p.Sub[0]
	}
	return p
}

func patternOf(raw json.RawMessage) hypermatch.Pattern {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return hypermatch.Pattern{Type: hypermatch.PatternEquals, Value: text}
	}
	var read struct {
		Prefix, Suffix, Wildcard string
		Numeric                  []json.RawMessage
		AnythingBut              []json.RawMessage `json:"anything-but"`
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&read); err != nil {
		fail(1, "%v in %s", err, raw)
	}
	switch {
	case read.Prefix != "":
		return hypermatch.Pattern{Type: hypermatch.PatternPrefix, Value: read.Prefix}
	case read.Suffix != "":
		return hypermatch.Pattern{Type: hypermatch.PatternSuffix, Value: read.Suffix}
	case read.Wildcard != "":
		return hypermatch.Pattern{Type: hypermatch.PatternWildcard, Value: read.Wildcard}
	case read.AnythingBut != nil:
		return oneOf(hypermatch.PatternAnythingBut, read.AnythingBut)
	case len(read.Numeric) == 2:
		signs := map[string]hypermatch.PatternType{
			`"<="`: hypermatch.PatternLessThanOrEqual,
			`">="`: hypermatch.PatternGreaterThanOrEqual,
		}
		if kind, known := signs[string(read.Numeric[0])]; known {
			return hypermatch.Pattern{Type: kind, Value: string(read.Numeric[1])}
		}
	}
	fail(1, "no pattern for %s", raw)
	panic("unreachable")
}

// propertiesOf takes from an event what rules name.
func propertiesOf(text []byte, names map[string]bool) []hypermatch.Property {
	var event map[string]any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&event); err != nil {
		fail(1, "%v in %s", err, text)
	}
	var properties []hypermatch.Property
	var add func(above string, fields map[string]any)
	add = func(above string, fields map[string]any) {
		for name, value := range fields {
			path := above + name
			if below, nested := value.(map[string]any); nested {
				add(path+".", below)
			} else if names[path] {
				properties = append(properties, hypermatch.Property{Path: path, Values: []string{fmt.Sprint(value)}})
			}
		}
	}
	add("", event)
	// Else each event has an order of its own.
	slices.SortFunc(properties, func(a, b hypermatch.Property) int { return strings.Compare(a.Path, b.Path) })
	return properties
}

// packed copies events so that each kind of thing in them lies in one piece of memory, as events lie in a ring; else there are
// a dozen places for each.
func packed(events [][]hypermatch.Property) [][]hypermatch.Property {
	var all strings.Builder
	count := 0
	for _, event := range events {
		for _, p := range event {
			all.WriteString(p.Values[0])
		}
		count += len(event)
	}
	text, values, properties := all.String(), make([]string, 0, count), make([]hypermatch.Property, 0, count)
	for i, event := range events {
		first := len(properties)
		for _, p := range event {
			size := len(p.Values[0])
			values = append(values, text[:size])
			text = text[size:]
			end := len(values)
			properties = append(properties, hypermatch.Property{Path: p.Path, Values: values[end-1 : end : end]})
		}
		events[i] = properties[first:]
	}
	return events
}

func open(path string) *bufio.Scanner {
	file, err := os.Open(path)
	if err != nil {
		fail(1, "%v", err)
	}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	return lines
}

// cpuTime is that of this thread.
func cpuTime() time.Duration {
	const threadCPUTime = 3
	var t syscall.Timespec
	_, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, threadCPUTime, uintptr(unsafe.Pointer(&t)), 0)
	if errno != 0 {
		fail(1, "clock_gettime: %v", errno)
	}
	return time.Duration(t.Nano())
}

// heap is how many bytes of it are in use.
func heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

func fail(code int, format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(code)
}
