import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.lang.ref.Reference;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import software.amazon.event.ruler.GenericMachine;

/** Event Ruler on the rules and events of a directory: see `run` beside it. CPU time of one thread, collection of garbage not in it. */
public final class Bench {
    private static final ThreadMXBean THREADS = ManagementFactory.getThreadMXBean();
    private static final int PASSES = 11;
    private static final int EVENTS_MIN = 8;
    private static final long PASS_NS = 100_000_000L;
    private static final long WARM_NS = 3_000_000_000L;
    private static final long BUILD_MAX_NS = 60_000_000_000L;

    public static void main(String[] args) throws Exception {
        Path dir = Path.of(args[0]);
        List<String> events = Files.readAllLines(dir.resolve("events.jsonl"));
        List<String> counts = Files.readAllLines(dir.resolve("counts.txt"));
        ObjectMapper mapper = new ObjectMapper();
        List<int[]> owners = new ArrayList<>();
        List<String> patterns = new ArrayList<>();
        int rules = 0;
        try (BufferedReader lines = Files.newBufferedReader(dir.resolve("patterns.jsonl"))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                JsonNode rule = mapper.readTree(line);
                for (JsonNode pattern : rule.get("patterns")) {
                    owners.add(new int[] {rule.get("id").asInt()});
                    patterns.add(pattern.toString());
                }
                rules += 1;
            }
        }

        long bytesBefore = used();
        long begun = THREADS.getCurrentThreadCpuTime();
        GenericMachine<Integer> machine = new GenericMachine<>();
        for (int i = 0; i < patterns.size(); i++) {
            machine.addRule(owners.get(i)[0], patterns.get(i));
            if (THREADS.getCurrentThreadCpuTime() - begun > BUILD_MAX_NS) {
                System.err.println(i + " patterns took " + BUILD_MAX_NS / 1_000_000_000L + " s to add");
                System.exit(3);
            }
        }
        double build = (THREADS.getCurrentThreadCpuTime() - begun) / 1e3 / rules;

        long checkBegun = System.nanoTime();
        for (int i = 0; i < counts.size(); i++) {
            int found = new HashSet<>(machine.rulesForJSONEvent(events.get(i))).size();
            if (found != Integer.parseInt(counts.get(i))) {
                System.err.println(found + " rules instead of " + counts.get(i) + " for " + events.get(i));
                System.exit(1);
            }
            if (i > EVENTS_MIN && System.nanoTime() - checkBegun > 5_000_000_000L) {
                break;
            }
        }

        int count = EVENTS_MIN;
        long warm = System.nanoTime();
        while (System.nanoTime() - warm < WARM_NS) {
            long time = pass(machine, events, count);
            count = (int) Math.min(events.size(), Math.max(EVENTS_MIN, count * PASS_NS / Math.max(1, time)));
        }
        double[] times = new double[PASSES];
        for (int i = 0; i < PASSES; i++) {
            times[i] = (double) pass(machine, events, count) / count;
        }
        Arrays.sort(times);
        double bytes = (double) Math.max(0, used() - bytesBefore) / rules;
        // Else they are collected before the second reading.
        Reference.reachabilityFence(owners);
        Reference.reachabilityFence(patterns);
        Reference.reachabilityFence(machine);
        System.out.println("{\"ns\":" + times[PASSES / 2] + ",\"build_us\":" + build + ",\"bytes\":" + bytes + "}");
    }

    private static long pass(GenericMachine<Integer> machine, List<String> events, int count) throws Exception {
        long begun = THREADS.getCurrentThreadCpuTime();
        long found = 0;
        for (int i = 0; i < count; i++) {
            found += machine.rulesForJSONEvent(events.get(i)).size();
        }
        if (found < 0) {
            throw new IllegalStateException();
        }
        return THREADS.getCurrentThreadCpuTime() - begun;
    }

    private static long used() {
        for (int i = 0; i < 3; i++) {
            System.gc();
        }
        Runtime r = Runtime.getRuntime();
        return r.totalMemory() - r.freeMemory();
    }
}
