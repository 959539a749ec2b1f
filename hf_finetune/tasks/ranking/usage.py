"""Python code of model cards that ranks candidates without this package."""

__all__ = ["usage_code"]


def usage_code(pipeline: str, model: str, example: str, options: str) -> str:
    """Return code that scores a query with a candidate; with several candidates, the highest score comes first.

    Args:
        pipeline: Name of the pipeline of transformers.
        model: Folder or Hub id.
        example: Python expression of a pair.
        options: Further arguments of the pipeline.
    """
    return (
        "from transformers import pipeline\n\n"
        f'score = pipeline("{pipeline}", model="{model}", function_to_apply="none"{options})\n'
        f"pairs = [{example}]  # a query, with one candidate each\n"
        'scores = [score(pair)["score"] for pair in pairs]\n'
        "print(sorted(zip(scores, pairs), key=lambda entry: -entry[0]))\n\n"
        "# or, with sentence-transformers:\n"
        "# from sentence_transformers import CrossEncoder\n"
        f'# CrossEncoder("{model}").rank("a query", ["a candidate", "another candidate"])'
    )
