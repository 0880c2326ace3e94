import edgesdk.EdgeException;
import edgesdk.LevelInfo;
import edgesdk.LoadOptions;
import edgesdk.Model;
import edgesdk.Sampling;
import edgesdk.Session;
import java.util.Arrays;
import java.util.concurrent.atomic.AtomicInteger;

/** What the Java binding promises, on the tiny artifact: run by tests/test_examples_native.py. */
public final class BindingChecks {
    private BindingChecks() {}

    private static void check(boolean held, String what) {
        if (!held) throw new AssertionError(what);
    }

    private static EdgeException thrown(Runnable call, int status, String part) {
        try {
            call.run();
        } catch (EdgeException error) {
            check(error.status == status, "status " + error.status + ": " + error.getMessage());
            check(error.getMessage().contains(part), error.getMessage());
            return error;
        }
        throw new AssertionError("nothing was thrown, expected status " + status);
    }

    private static void refused(Runnable call, String part) {
        try {
            call.run();
        } catch (IllegalStateException error) {
            check(error.getMessage().contains(part), error.getMessage());
            return;
        }
        throw new AssertionError("nothing was thrown, expected: " + part);
    }

    private static void loading(String path) {
        thrown(() -> Model.load("/nowhere/\u00e9.edge"), 200, "/nowhere/\u00e9.edge");
        EdgeException error = thrown(() -> Model.load(path, new LoadOptions().budgetBytes(1000)), 202, "bytes are missing");
        check(!error.hint.isEmpty() && !error.getMessage().contains("hint:"), "the hint stands by itself: " + error.hint);
        try (Model model = Model.load(path, new LoadOptions().level(1).contextTokens(64).threads(1).verifyFirst(true))) {
            check(model.level() == 1 && model.contextTokens() == 64, "options arrive");
            check(model.levelReason().startsWith("level 1 of 0..2"), model.levelReason());
            LevelInfo[] levels = model.levels();
            check(levels.length == 3 && levels[2].rate == 0 && levels[0].rate > levels[1].rate, "the ladder");
            check(levels[1].available && levels[0].mappedBytes < levels[2].mappedBytes, "sizes");
        }
        try (Model model = Model.load(path, new LoadOptions().rate(0))) {
            check(model.level() == 2, "the full level by rate");
        }
        check(!Model.engineVersion().isEmpty(), "a version");
    }

    /** With EDGE_OPENCL_DEVICE naming none: there is no OpenCL, whatever the machine has. */
    private static void backends(String path) {
        LoadOptions opencl = new LoadOptions().backend(LoadOptions.Backend.OPENCL);
        EdgeException error = thrown(() -> Model.load(path, opencl), 203, "OpenCL");
        check(error.getMessage().contains("no such name") || !error.hint.isEmpty(), error.getMessage());
        for (LoadOptions.Backend backend : new LoadOptions.Backend[] {LoadOptions.Backend.CPU, LoadOptions.Backend.AUTO}) {
            try (Model model = Model.load(path, new LoadOptions().backend(backend))) {
                boolean found = backend == LoadOptions.Backend.AUTO && model.backend().equals("cuda");
                check(found || model.backend().equals("cpu"), "what computes is told: " + model.backend());
            }
        }
    }

    private static void texts(Model model) {
        String text = "a\u0000\u00e9\u4e16\uD83D\uDE00"; // NUL and a character beyond 16 bits: not in JNI's own encoding
        int[] tokens = model.tokenize(text, false, false);
        check(tokens.length == 1 + 1 + 2 + 3 + 4, "a token per byte: " + tokens.length);
        check(model.detokenize(tokens).equals(text), "there and back");
        check(model.detokenize(new int[0]).isEmpty(), "no tokens");
    }

    private static void generating(Model model) {
        try (Session session = model.openSession()) {
            String whole = session.generate("Hello", 24);
            check(session.position() == 5 + 24, "prompt and answer: " + session.position());
            session.reset();
            StringBuilder pieces = new StringBuilder();
            int n = session.generate("Hello", 24, piece -> pieces.append(piece).length() < 3);
            check(whole.startsWith(pieces.toString()) && n < 24, "a listener stops it");
            session.reset();
            String stop = whole.substring(3, 5);
            StringBuilder stopped = new StringBuilder();
            session.generate("Hello", 24, piece -> stopped.append(piece) != null, stop, "never seen");
            check(stopped.toString().equals(whole.substring(0, whole.indexOf(stop))), "a stop text ends it");
            session.reset();
            session.setSampling(new Sampling().temperature(30).topK(50).topP(0.9f).minP(0.01f).seed(4));
            String sampled = session.generate("Hello", 20);
            session.reset();
            session.setSampling(new Sampling().temperature(30).topK(50).topP(0.9f).minP(0.01f).seed(4));
            check(sampled.equals(session.generate("Hello", 20)) && !whole.startsWith(sampled), "a seed gives one text");
            thrown(() -> session.generate("x".repeat(600), 1), 2, "tokens do not fit");
        }
    }

    private static void listeners(Model model) {
        try (Session session = model.openSession()) {
            try {
                session.generate("Hello", 24, piece -> {
                    throw new UnsupportedOperationException("mine");
                });
                throw new AssertionError("the listener's exception was lost");
            } catch (UnsupportedOperationException error) {
                check(error.getMessage().equals("mine"), error.getMessage());
            }
            session.reset();
            session.generate("Hello", 4, piece -> {
                refused(session::close, "cannot close");
                refused(session::reset, "cannot call");
                return true;
            });
            session.reset();
            AtomicInteger pieces = new AtomicInteger();
            thrown(() -> session.generate("Hello", 24, piece -> {
                pieces.incrementAndGet();
                session.cancel();
                return true;
            }), 3, "cancel");
            check(pieces.get() == 1, "nothing comes after a cancel: " + pieces.get());
            session.reset();
            check(!session.generate("Hello", 4).isEmpty(), "and the session can be used again");
        }
    }

    private static void resizing(String path) {
        try (Model model = Model.load(path, new LoadOptions().level(2)); Session session = model.openSession()) {
            String[] expected = new String[2];
            for (int level = 0; level < 2; ++level) {
                try (Model own = Model.load(path, new LoadOptions().level(level)); Session fresh = own.openSession()) {
                    expected[level] = fresh.generate("Hello", 8);
                }
            }
            session.generate("Hello", 4);
            for (int level = 0; level < 2; ++level) {
                model.setLevel(level, Model.Recompute.values()[level % 3]);
                check(model.level() == level, "the level has changed");
                session.reset();
                check(session.generate("Hello", 8).equals(expected[level]), "as if loaded at level " + level);
            }
            thrown(() -> model.setLevel(3, Model.Recompute.NEXT_STEP), 1, "does not exist");
            model.trimMemory(80);
            check(model.level() == 0, "TRIM_MEMORY_COMPLETE takes all");
            model.trimMemory(0);
            check(model.level() == 1, "and it comes back");
        }
    }

    private static void closing(String path) {
        Model model = Model.load(path);
        Session session = model.openSession();
        int[] prompt = model.tokenize("Hello");
        model.close();
        model.close();
        refused(model::level, "closed");
        refused(() -> session.generate("Hello", 1), "closed");
        check(session.generate(prompt, 4, piece -> true) == 4, "a session outlives its model");
        session.close();
        session.close();
        session.cancel();
        refused(session::position, "closed");
        check(prompt.length == 5 && Arrays.stream(prompt).allMatch(token -> token > 0), "tokens of the prompt");
    }

    public static void main(String[] arguments) {
        loading(arguments[0]);
        backends(arguments[0]);
        try (Model model = Model.load(arguments[0], new LoadOptions().level(2))) {
            texts(model);
            generating(model);
            listeners(model);
        }
        resizing(arguments[0]);
        closing(arguments[0]);
        System.out.println("all checks held");
    }
}
