package edgesdk;

/** Gets text while it is generated. An exception that it throws ends the generation and reaches the caller. */
public interface TextListener {
    /** Takes a piece, which never ends inside a character. Returns false to stop. */
    boolean onText(String piece);
}
