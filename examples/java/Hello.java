import edgesdk.LoadOptions;
import edgesdk.Model;
import edgesdk.Session;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;

/**
 * Continues a text with one level of an artifact: the engine from Java.
 *
 * <pre>
 * cmake -S BUNDLE/java -B build -DCMAKE_PREFIX_PATH=BUNDLE && cmake --build build
 * javac -d build BUNDLE/java/src/edgesdk/*.java examples/java/Hello.java
 * LD_LIBRARY_PATH=BUNDLE/lib java -Djava.library.path=build -cp build Hello model.edge 3 "Once upon a time"
 * </pre>
 */
public final class Hello {
    private Hello() {}

    public static void main(String[] arguments) {
        if (arguments.length != 3) {
            System.err.println("usage: Hello FILE.edge LEVEL PROMPT");
            System.exit(2);
        }
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        LoadOptions options = new LoadOptions().level(Integer.parseInt(arguments[1]));
        try (Model model = Model.load(arguments[0], options);
                Session session = model.openSession()) {
            System.err.println(model.levelReason());
            session.generate(arguments[2], 24, piece -> {
                out.print(piece);
                return true;
            });
            out.println();
        }
    }
}
